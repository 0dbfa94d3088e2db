FROM python:3.12-slim
RUN pip install --no-cache-dir mlflow==3.17.2
VOLUME /var/lib/mlflow
EXPOSE 5000
# Files travel through the server, so that clients need no access to its storage.
CMD ["mlflow", "server", "--host", "0.0.0.0", "--port", "5000", \
     "--backend-store-uri", "sqlite:////var/lib/mlflow/mlflow.db", \
     "--artifacts-destination", "/var/lib/mlflow/artifacts", "--serve-artifacts", \
     "--allowed-hosts", "mlflow:5000,localhost:5000,127.0.0.1:5000"]
