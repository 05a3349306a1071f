//! The generated dispatch, arm by arm; and what is about the server itself.

use memkv_wire::{
    Allocate, BatchRead, BatchWrite, Commit, Counter, Delete, DeleteManifest, Dispatch, Exists, GetManifest,
    List, ListManifests, Lookup, Ping, PingReply, PutManifest, Read, ResponseWhich, Stats, StatsReply,
    Status, Write,
};

use super::{Call, Service};

impl Dispatch for Service {
    type Call = Call;

    fn allocate(&mut self, call: Call, namespace: &[u8], request: Allocate<'_>) {
        self.on_allocate(call, namespace, request);
    }

    fn lookup(&mut self, call: Call, namespace: &[u8], request: Lookup<'_>) {
        self.on_lookup(call, namespace, request);
    }

    fn commit(&mut self, call: Call, _namespace: &[u8], request: Commit<'_>) {
        self.on_commit(call, request);
    }

    fn delete(&mut self, call: Call, namespace: &[u8], request: Delete<'_>) {
        self.on_delete(call, namespace, request);
    }

    fn exists(&mut self, call: Call, namespace: &[u8], request: Exists<'_>) {
        self.on_exists(call, namespace, request);
    }

    fn read(&mut self, call: Call, namespace: &[u8], request: Read<'_>) {
        self.on_read(call, namespace, request);
    }

    fn write(&mut self, call: Call, namespace: &[u8], request: Write<'_>) {
        self.on_write(call, namespace, request);
    }

    fn batch_read(&mut self, call: Call, namespace: &[u8], request: BatchRead<'_>) {
        self.on_batch_read(call, namespace, request);
    }

    fn batch_write(&mut self, call: Call, namespace: &[u8], request: BatchWrite<'_>) {
        self.on_batch_write(call, namespace, request);
    }

    fn put_manifest(&mut self, call: Call, namespace: &[u8], request: PutManifest<'_>) {
        self.on_put_manifest(call, namespace, request);
    }

    fn get_manifest(&mut self, call: Call, namespace: &[u8], request: GetManifest<'_>) {
        self.on_get_manifest(call, namespace, request);
    }

    fn delete_manifest(&mut self, call: Call, namespace: &[u8], request: DeleteManifest<'_>) {
        self.on_delete_manifest(call, namespace, request);
    }

    fn list_manifests(&mut self, call: Call, namespace: &[u8], request: ListManifests<'_>) {
        self.on_list_manifests(call, namespace, request);
    }

    //= MKV-PING-1
    fn ping(&mut self, call: Call, _namespace: &[u8], request: Ping<'_>) {
        //= MKV-PING-2
        // What was never registered is easily forgotten.
        if !request.regions.is_empty() {
            match self.take_registration(call.name) {
                Status::Ok => self.counters.memory_registered += 1,
                status => return self.fail(call.name, status),
            }
        }
        let reply = PingReply { echo: request.echo, uptime_ms: self.now_ms - self.started_ms };
        self.finish(call.name, Status::Ok, ResponseWhich::Ping(reply));
    }

    fn stats(&mut self, call: Call, _namespace: &[u8], request: Stats<'_>) {
        let mut counters: Vec<Counter<'_>> = self
            .all_counters()
            .filter(|(name, _)| name.starts_with(request.prefix))
            .map(|(name, value)| Counter { name, value })
            .collect();
        counters.sort_unstable_by_key(|counter| counter.name);
        let reply = StatsReply { counters: List::from(&counters) };
        self.finish(call.name, Status::Ok, ResponseWhich::Stats(reply));
    }
}
