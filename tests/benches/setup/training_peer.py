"""The Python side of the training benchmark: splits the pairs, and trains the peers.

training_peer.py split PAIRS.parquet SPLIT.bin
    80/20 per user, seed 0. SPLIT.bin holds little-endian u32: users, items, train pairs, test pairs, then the train
    and the test pairs as (user, item).
training_peer.py train SPLIT.bin MODEL THREADS FACTORS ITERATIONS
    Trains als_cg, als_cholesky, bpr (implicit) or ease (NumPy, in double precision as ours), prints one JSON line with the seconds
    of the fit alone, the peak memory, and NDCG@10 and Recall@20 over all users with test pairs.
"""

import json
import os
import resource
import sys
import time

# Must be known before NumPy loads its BLAS. implicit runs its own threads and asks for a single-threaded BLAS;
# NumPy's inverse gets all the threads.
if len(sys.argv) > 4 and sys.argv[1] == "train":
    blas_threads = sys.argv[4] if sys.argv[3] == "ease" else "1"
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = blas_threads

import numpy as np
import scipy.sparse as sp


def split(source, target):
    import pyarrow.parquet as pq

    table = pq.read_table(source)
    _, users = np.unique(table["userID"].to_numpy(zero_copy_only=False).astype(np.int64), return_inverse=True)
    _, items = np.unique(table["movieID"].to_numpy(zero_copy_only=False).astype(np.int64), return_inverse=True)
    random = np.random.default_rng(0)
    # A random order, then a stable sort by user: random inside each user.
    order = random.permutation(len(users))
    order = order[np.argsort(users[order], kind="stable")]
    users, items = users[order], items[order]
    starts = np.searchsorted(users, users)
    counts = np.bincount(users)
    rank = np.arange(len(users)) - starts
    is_test = rank < np.ceil(counts[users] * 0.2)
    pairs = np.stack([users, items], axis=1).astype("<u4")
    header = np.array([users.max() + 1, items.max() + 1, (~is_test).sum(), is_test.sum()], dtype="<u4")
    with open(target, "wb") as file:
        for part in (header, pairs[~is_test], pairs[is_test]):
            file.write(part.tobytes())


def load(path):
    raw = np.fromfile(path, dtype="<u4")
    users, items, train, test = (int(value) for value in raw[:4])
    pairs = raw[4:].reshape(-1, 2).astype(np.int64)
    assert len(pairs) == train + test

    def matrix(part):
        ones = np.ones(len(part), dtype=np.float32)
        return sp.csr_matrix((ones, (part[:, 0], part[:, 1])), shape=(users, items))

    return matrix(pairs[:train]), matrix(pairs[train:])


def train(matrix, name, threads, factors, iterations):
    """Returns the seconds of the fit and a function from user rows to scores."""
    if name == "ease":
        matrix = matrix.astype(np.float64)
        begin = time.perf_counter()
        weights = (matrix.T @ matrix).toarray()
        diagonal = np.diag_indices(weights.shape[0])
        weights[diagonal] += 500.0
        weights = np.linalg.inv(weights)
        weights = weights / -np.diag(weights)
        weights[diagonal] = 0.0
        seconds = time.perf_counter() - begin
        return seconds, lambda rows: matrix[rows] @ weights
    if name == "bpr":
        from implicit.bpr import BayesianPersonalizedRanking

        model = BayesianPersonalizedRanking(
            factors=factors, learning_rate=0.01, regularization=0.01, iterations=iterations,
            num_threads=threads, random_state=0, use_gpu=False,
        )
    else:
        from implicit.als import AlternatingLeastSquares

        model = AlternatingLeastSquares(
            factors=factors, regularization=1.0, alpha=10.0, iterations=iterations,
            num_threads=threads, random_state=0, use_gpu=False, use_cg=name == "als_cg",
        )
    begin = time.perf_counter()
    model.fit(matrix, show_progress=False)
    seconds = time.perf_counter() - begin
    return seconds, lambda rows: model.user_factors[rows] @ model.item_factors.T


def evaluate(scores_of, train, test):
    discounts = 1.0 / np.log2(np.arange(2, 12))
    ndcg, recall = [], []
    for begin in range(0, train.shape[0], 512):
        rows = np.arange(begin, min(begin + 512, train.shape[0]))
        scores = np.asarray(scores_of(rows), dtype=np.float64)
        scores[train[rows].nonzero()] = -np.inf
        top = np.argsort(-scores, axis=1, kind="stable")[:, :20]
        for row, ranked in zip(rows, top):
            truth = test.indices[test.indptr[row]:test.indptr[row + 1]]
            if len(truth) == 0:
                continue
            hits = np.isin(ranked, truth)
            ndcg.append((hits[:10] * discounts).sum() / discounts[:min(10, len(truth))].sum())
            recall.append(hits.sum() / len(truth))
    return float(np.mean(ndcg)), float(np.mean(recall))


def main():
    if sys.argv[1] == "split":
        return split(sys.argv[2], sys.argv[3])
    path, name, threads, factors, iterations = sys.argv[2], sys.argv[3], *(int(value) for value in sys.argv[4:7])
    train_matrix, test_matrix = load(path)
    seconds, scores_of = train(train_matrix, name, threads, factors, iterations)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    ndcg, recall = evaluate(scores_of, train_matrix, test_matrix)
    print(json.dumps({"seconds": seconds, "peak_rss_mib": peak, "ndcg": ndcg, "recall": recall}))


main()
