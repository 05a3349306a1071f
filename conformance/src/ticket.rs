//! What a child process is told: one line of JSON on the socket that is its standard input.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// One errand of one child.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ticket {
    pub target: Target,
    /// Decides every choice a case makes.
    pub seed: u64,
    /// Part of every name and byte that a run stores, so that runs on one store never meet.
    pub run: String,
    /// The case, also when the errand is to help it.
    pub case: String,
    pub errand: Errand,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Errand {
    /// Run the case.
    Case,
    /// Open the store and do what comes over the socket: the other process of a case that needs two.
    Serve,
}

/// What is tested.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Target {
    Abi(AbiTarget),
    WireServer(WireServerTarget),
    WireClient(WireClientTarget),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AbiTarget {
    pub library: PathBuf,
    pub uri: String,
    /// Another namespace of the same kind of store.
    pub other_uri: Option<String>,
    /// Restarts the service behind the store, and returns when it is up again.
    pub restart_command: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WireServerTarget {
    /// `host:port`.
    pub address: String,
    /// The shared key, in hex. It goes to children over their socket, not over a command line.
    pub key: String,
    /// Restarts the server, and returns when it is up again.
    pub restart_command: Option<String>,
    /// Connections ask for a queue pair.
    pub rdma: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WireClientTarget {
    /// Runs the client's driver. Run by sh.
    pub command: String,
    /// The client is to ask for queue pairs, and gets them.
    pub rdma: bool,
}

impl Target {
    pub fn suite(&self) -> &'static str {
        match self {
            Target::Abi(_) => "abi",
            Target::WireServer(_) => "wire-server",
            Target::WireClient(_) => "wire-client",
        }
    }

    /// For people and reports.
    pub fn describe(&self) -> String {
        match self {
            Target::Abi(abi) => format!("{} {}", abi.library.display(), abi.uri),
            Target::WireServer(server) => server.address.clone(),
            Target::WireClient(client) => client.command.clone(),
        }
    }
}
