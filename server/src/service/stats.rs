//! What the server counts. Every counter rises from 0 at the start of the process, except those that say how
//! much there is now. Names are documented in docs/operating.md; a test compares.

use super::Service;

/// Counters of the connection layer and of the operations; the store has its own.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    pub connections: u64,
    pub connections_total: u64,
    pub connections_refused: u64,
    /// Of those that were set up, the ones over a queue pair.
    pub connections_rdma: u64,
    pub connections_closed_by_fault: u64,
    pub frames_received: u64,
    pub frames_sent: u64,
    /// Of those received and sent, the ones that RDMA moved one-sided.
    pub bytes_fetched: u64,
    pub bytes_put: u64,
    pub bytes_received: u64,
    pub bytes_sent: u64,
    pub requests: u64,
    pub requests_failed: u64,
    pub reads: u64,
    pub read_bytes: u64,
    pub read_misses: u64,
    pub writes: u64,
    pub write_bytes: u64,
    pub writes_present: u64,
    pub exists: u64,
    pub exists_misses: u64,
    pub deletes: u64,
    pub manifests_put: u64,
    pub manifests_incomplete: u64,
    pub manifests_read: u64,
    pub manifests_deleted: u64,
    pub memory_registered: u64,
    pub checksum_mismatches: u64,
}

impl Counters {
    /// In the order of their names.
    pub fn list(&self) -> [(&'static str, u64); 28] {
        [
            ("bytes_fetched", self.bytes_fetched),
            ("bytes_put", self.bytes_put),
            ("bytes_received", self.bytes_received),
            ("bytes_sent", self.bytes_sent),
            ("checksum_mismatches", self.checksum_mismatches),
            ("connections", self.connections),
            ("connections_closed_by_fault", self.connections_closed_by_fault),
            ("connections_rdma", self.connections_rdma),
            ("connections_refused", self.connections_refused),
            ("connections_total", self.connections_total),
            ("deletes", self.deletes),
            ("exists", self.exists),
            ("exists_misses", self.exists_misses),
            ("frames_received", self.frames_received),
            ("frames_sent", self.frames_sent),
            ("manifests_deleted", self.manifests_deleted),
            ("manifests_incomplete", self.manifests_incomplete),
            ("manifests_put", self.manifests_put),
            ("manifests_read", self.manifests_read),
            ("memory_registered", self.memory_registered),
            ("read_bytes", self.read_bytes),
            ("read_misses", self.read_misses),
            ("reads", self.reads),
            ("requests", self.requests),
            ("requests_failed", self.requests_failed),
            ("write_bytes", self.write_bytes),
            ("writes", self.writes),
            ("writes_present", self.writes_present),
        ]
    }
}

impl Service {
    /// Every counter there is: the server's own and the store's.
    pub(super) fn all_counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let store = self.store.counters();
        let usage = self.store.usage();
        let of_store = [
            ("allocations_expired", store.allocations_expired),
            ("bytes_stored", store.put_bytes),
            ("catalog_bytes", usage.catalog_bytes),
            ("checksum_failures", store.corrupt),
            ("chunks_stored", store.puts),
            ("device_bytes_written", store.device_bytes_written),
            ("device_flushes", store.flushes),
            ("device_read_errors", store.read_errors),
            ("device_write_errors", store.write_errors),
            ("devices_failed", store.devices_failed),
            ("journal_bytes_written", store.journal_bytes_written),
            ("leases", usage.leases),
            ("leases_refused", store.leases_refused),
            ("manifests", usage.manifests),
            ("manifests_lost", store.manifests_lost),
            ("out_of_space", store.out_of_space),
            ("reads_pinned", usage.pins),
            ("requests_open", self.requests.len() as u64),
            ("space_capacity_bytes", usage.capacity_bytes),
            ("space_used_bytes", usage.used_bytes),
            ("uptime_ms", self.now_ms - self.started_ms),
            ("values_lost", store.values_lost),
            ("values_stored", usage.values),
        ];
        self.counters.list().into_iter().chain(of_store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_sorted_and_unlike() {
        let names: Vec<&str> = Counters::default().list().map(|(name, _)| name).to_vec();
        assert!(names.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
