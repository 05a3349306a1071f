//! What a [`Core`](super::Core) is told once: sizes, times and bounds.

use memkv_wire::limits;

/// The settings of a core. All times in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Connections to keep to the server: the first for small requests, the others for bulk. With one,
    /// both share it.
    pub connections: u16,
    /// Requests that wait for an answer on one connection; the server may allow fewer.
    pub requests_in_flight_max: u16,
    /// Requests whose frames take turns on one connection.
    pub requests_interleaved_max: u16,
    /// How long a connection may take to be set up. The driver gives a local socket, or RDMA that there is TCP beside, a share of it.
    pub setup_timeout_ms: u64,
    /// The first delay after a failure; it doubles with each further one.
    pub backoff_ms_min: u64,
    /// The longest delay.
    pub backoff_ms_max: u64,
    /// Attempts of one call that a lost connection may end.
    pub call_retries_max: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections: 3,
            requests_in_flight_max: 64,
            requests_interleaved_max: 4,
            setup_timeout_ms: 3_000,
            backoff_ms_min: 20,
            backoff_ms_max: 1_000,
            call_retries_max: 8,
        }
    }
}

impl Settings {
    /// The settings with every number inside the bounds that the core relies on.
    pub(super) fn bounded(self) -> Self {
        Self {
            connections: self.connections.clamp(1, CONNECTIONS_MAX),
            requests_in_flight_max: self
                .requests_in_flight_max
                .clamp(1, limits::REQUESTS_IN_FLIGHT_MAX as u16),
            requests_interleaved_max: self.requests_interleaved_max.max(1),
            backoff_ms_max: self.backoff_ms_max.max(self.backoff_ms_min),
            ..self
        }
    }
}

/// The most connections that one core keeps.
pub const CONNECTIONS_MAX: u16 = 64;

const _: () = assert!(limits::REQUESTS_IN_FLIGHT_MAX <= u16::MAX as u32);
