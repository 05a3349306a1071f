//! A socket for whole clients to connect to, with a test's own script behind it.

use std::collections::HashMap;
use std::sync::Arc;

use memkv_transport::buf::BufPool;
use memkv_transport::session::{ServerTerms, SetupGate};
use memkv_transport::stream::Outgoing;
use memkv_transport::tcp;
use memkv_wire::mac::{BulkAlgorithm, Key, KeyRing};
use memkv_wire::{ControlBuf, Message, Request, RequestWhich, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::TestFrame;
use crate::config::{Config, Transport};

/// What a host does when it has received a whole message.
pub enum Step {
    /// Answers it.
    Answer(Vec<TestFrame>),
    /// Closes the connection: its client does not learn what became of the message.
    Cut,
}

/// Listens on a port of its own until it is dropped.
pub struct Host {
    port: u16,
    _tasks: JoinSet<()>,
}

impl Host {
    /// A host that says that its local socket is at `local_path`, and steps by `script`.
    pub async fn start(
        local_path: &str,
        script: impl Fn(&[TestFrame]) -> Step + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let terms = ServerTerms {
            server_id: [2; 16],
            server_name: "a script".to_owned(),
            local_path: local_path.to_owned(),
            queue_pairs: false,
            requests_in_flight_max: 64,
            lease_ms: 10_000,
            bulk_macs: BulkAlgorithm::preference().to_vec(),
        };
        let (terms, script) = (Arc::new(terms), Arc::new(script));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (terms, script) = (Arc::clone(&terms), Arc::clone(&script));
                connections.spawn(async move { serve(socket, &terms, &*script).await });
            }
        });
        Self { port, _tasks: tasks }
    }

    /// For a client with one connection, over TCP.
    pub fn config(&self) -> Config {
        let uri = format!("memkv://127.0.0.1:{}/ns", self.port);
        let mut config = Config::new(&uri, key()).expect("a URI");
        (config.transport, config.settings.connections) = (Transport::Tcp, 1);
        config
    }
}

fn key() -> Key {
    Key::from_bytes([7; 32])
}

async fn serve(socket: TcpStream, terms: &ServerTerms, script: &(dyn Fn(&[TestFrame]) -> Step + Sync)) {
    let (ring, gate, pool) = (KeyRing::from(key()), SetupGate::default(), BufPool::new(64 << 20));
    let Ok((mut reader, mut writer, _)) = tcp::accept(socket, &ring, terms, &gate, pool).await else {
        return;
    };
    let mut messages: HashMap<u32, Vec<TestFrame>> = HashMap::new();
    while let Ok(Some(frame)) = reader.next().await {
        let (request_id, last) = (frame.request_id, frame.last);
        let frame = TestFrame { control: frame.control.to_vec(), payload: frame.payload, last };
        messages.entry(request_id).or_default().push(frame);
        if !last {
            continue;
        }
        let Step::Answer(reply) = script(&messages.remove(&request_id).unwrap_or_default()) else { return };
        for TestFrame { control, payload, last } in reply {
            let message = Message::new(&control).expect("whole words");
            let mut frame = Outgoing { request_id, last, control: ControlBuf::new(), ..writer.blank() };
            let response = Response::decode(&message).expect("a response");
            response.encode(&mut frame.control).expect("within bounds");
            frame.payload.extend(payload);
            writer.push(frame).expect("room for a small reply");
        }
        if writer.flush().await.is_err() {
            return;
        }
    }
}

/// Hands a message's first request to `see`.
pub fn with_request<R>(frames: &[TestFrame], see: impl FnOnce(RequestWhich<'_>) -> R) -> R {
    let message = Message::new(&frames[0].control).expect("whole words");
    see(Request::decode(&message).expect("a request").which)
}
