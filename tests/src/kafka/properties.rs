//! The broker's configuration: one node that is broker and controller, replication of one, nothing automatic.

use std::path::Path;

pub(super) fn server(port: u16, controller_port: u16, log: &Path) -> String {
    let log = log.display();
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller_port}
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
inter.broker.listener.name=PLAINTEXT
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs={log}
auto.create.topics.enable=false
# One node cannot replicate; the internal topics ask for three by default.
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
# The three seconds that a coordinator waits for more members help a cluster and cost a test.
group.initial.rebalance.delay.ms=0
# After a kill the controller waits for the old broker's session to lapse before it lets the new one serve.
broker.session.timeout.ms=1000
broker.heartbeat.interval.ms=200
num.network.threads=2
num.io.threads=4
log.cleaner.dedupe.buffer.size=2097152
"
    )
}
