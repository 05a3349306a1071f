//! The RDMA devices that a server was told to use: opened before it listens, or it does not start. The memory for payloads is registered with
//! each; where it cannot be, bytes go with the frames.

use std::sync::Arc;

use memkv_transport::buf::BufPool;
use memkv_transport::rdma::device;
use memkv_transport::rdma::{Device, Memory, Offer, Reach, Selection};

use super::StartError;
use crate::config::RdmaSettings;

pub fn open(settings: &RdmaSettings, pools: [&BufPool; 2]) -> Result<Offer, StartError> {
    let selection = |device| Selection {
        device,
        port: settings.port,
        gid_type: settings.gid_type,
        subnet: settings.subnet,
    };
    let open = |device: Option<String>| {
        let name = device.clone();
        let refused = |source| StartError::Rdma { device: Named { name, found: device::names() }, source };
        Device::open(&selection(device)).map_err(refused)
    };
    let devices: Vec<Arc<Device>> = match settings.devices.as_slice() {
        [] => vec![open(None)?],
        names => names.iter().map(|name| open(Some(name.clone()))).collect::<Result<_, _>>()?,
    };
    for device in &devices {
        let address = std::net::Ipv6Addr::from(device.gid());
        tracing::info!(device = device.name(), port = device.port(), %address, "RDMA");
    }
    let mut offer = Offer::new(devices.clone(), settings.connections_max as usize);
    for device in &devices {
        match Memory::register(device, &pools.map(|pool| (pool, Reach::Own))) {
            Ok(memory) => offer = offer.with_memory(memory),
            Err(error) => {
                tracing::warn!(device = device.name(), %error, "no one-sided transfers: bytes go with the frames");
            }
        }
    }
    Ok(offer)
}

/// A device in an error: its name, if it was told one, and those that there are.
#[derive(Debug)]
pub struct Named {
    name: Option<String>,
    found: Vec<String>,
}

impl std::fmt::Display for Named {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.name {
            Some(name) if self.found.contains(name) => write!(f, "the RDMA device {name}"),
            Some(name) if self.found.is_empty() => write!(f, "the RDMA device {name} (there is none at all)"),
            Some(name) => write!(f, "the RDMA device {name} (there are: {})", self.found.join(", ")),
            None => f.write_str("an RDMA device"),
        }
    }
}
