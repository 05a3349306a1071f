//! Drives a store over real devices, the way a server does: requests go in under one lock, device work goes to the devices'
//! own threads (or to a few of ours where a device blocks), what has ended comes back in batches.
//!
//! One caller makes the requests. Those that it offers have a window: what does not fit waits its turn, and is begun by whoever ends
//! another, on the device's own thread. So the device is never idle for the time that it takes to wake the caller.

use std::collections::VecDeque;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use anyhow::{Result, bail};
use memkv_server::io::{Device, Devices, Transfer};
use memkv_server::store::*;
use memkv_transport::buf::{Buf, BufMut};

pub const CLIENT: ClientId = ClientId(1);
/// Threads for devices that block.
const THREADS: usize = 8;

pub struct Driver(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    ended: Condvar,
    devices: Devices,
    blocking: Mutex<Sender<Command<Buf>>>,
    started: Instant,
}

struct State {
    store: Store<Buf>,
    tickets: u64,
    ended: VecDeque<Ended>,
    /// The caller sleeps.
    waiting: bool,
    window: usize,
    /// Of what was offered.
    under_way: usize,
    offered: VecDeque<Work>,
}

/// A request that waits its turn.
pub enum Work {
    Put {
        key: [u8; 8],
        blocks: Vec<Block<Buf>>,
    },
    /// Of a whole value of one record, into the buffer.
    Read {
        key: [u8; 8],
        blocks: u32,
        buffer: BufMut,
    },
}

/// What devices are to do, once the lock is free.
#[derive(Default)]
struct Todo {
    commands: Vec<Command<Buf>>,
    reads: Vec<(ReadPlan, BufMut)>,
}

/// What the caller waits for.
pub enum Ended {
    Request(Ticket, Result<Outcome, StoreError>),
    Read(ReadEnd),
}

/// A plan whose bytes were fetched, and not verified yet.
pub struct ReadEnd {
    pub plan: ReadPlan,
    pub buffer: BufMut,
    pub result: Result<(), IoError>,
}

impl Driver {
    pub fn format(devices: Vec<Arc<dyn Device>>, config: Config) -> Result<Driver> {
        let mut devices = Devices::new(devices);
        format(&mut devices, &config, FormatOptions { server_id: [1; 16], secrets: [2; 32] })?;
        Ok(Driver::open(devices, config)?.0)
    }

    pub fn open(mut devices: Devices, config: Config) -> Result<(Driver, OpenReport)> {
        let (store, report) = Store::open(0, config, &mut devices)?;
        let (sender, receiver) = channel::<Command<Buf>>();
        let state = State {
            store,
            tickets: 0,
            ended: VecDeque::new(),
            waiting: false,
            window: 0,
            under_way: 0,
            offered: VecDeque::new(),
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            ended: Condvar::new(),
            devices,
            blocking: Mutex::new(sender),
            started: Instant::now(),
        });
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..THREADS {
            let (receiver, shared) = (Arc::clone(&receiver), Arc::downgrade(&shared));
            std::thread::spawn(move || {
                loop {
                    let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let (Ok(command), Some(shared)) = (next, shared.upgrade()) else { return };
                    let result = shared.devices.execute(&command);
                    shared.completed(command.id, result);
                }
            });
        }
        Ok((Driver(shared), report))
    }

    pub fn now_ms(&self) -> u64 {
        self.0.now_ms()
    }

    /// Begins a request and whatever can be begun now.
    pub fn begin(&self, request: impl FnOnce(&mut Store<Buf>, u64, Ticket)) -> Ticket {
        let now_ms = self.now_ms();
        let mut state = self.0.lock();
        state.tickets += 1;
        let ticket = Ticket(state.tickets);
        request(&mut state.store, now_ms, ticket);
        self.0.go_on(state);
        ticket
    }

    /// A look at the store, or a request that ends at once.
    pub fn with<T>(&self, call: impl FnOnce(&mut Store<Buf>, u64) -> T) -> T {
        call(&mut self.0.lock().store, self.now_ms())
    }

    /// Waits until something ended, and takes all that did.
    pub fn wait(&self, into: &mut Vec<Ended>) {
        let mut state = self.0.lock();
        while state.ended.is_empty() {
            state.waiting = true;
            state = self.0.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        into.extend(state.ended.drain(..));
    }

    /// One request to its end, with nothing else under way.
    pub fn run(&self, request: impl FnOnce(&mut Store<Buf>, u64, Ticket)) -> Result<Outcome> {
        let wanted = self.begin(request);
        let mut ended = Vec::new();
        loop {
            self.wait(&mut ended);
            for end in ended.drain(..) {
                if let Ended::Request(ticket, result) = end
                    && ticket == wanted
                {
                    return result.map_err(Into::into);
                }
            }
        }
    }

    pub fn put(&self, key: &[u8], blocks: Vec<Block<Buf>>) -> Ticket {
        self.begin(|store, now_ms, ticket| store.put(now_ms, CLIENT, ticket, Key::new(b"", key), blocks))
    }

    /// How much of what is offered is under way at a time.
    pub fn set_window(&self, window: usize) {
        self.0.lock().window = window;
    }

    /// Begins this as soon as the window allows it.
    pub fn offer(&self, work: Work) {
        let mut state = self.0.lock();
        state.offered.push_back(work);
        self.0.go_on(state);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins what can be begun. The lock is free while devices are called.
    fn go_on(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let mut todo = Todo::default();
        state.begin_offered(self.now_ms(), &mut todo);
        while let Some(command) = state.store.poll_command() {
            todo.commands.push(command);
        }
        while let Some(event) = state.store.poll_event() {
            state.under_way = state.under_way.saturating_sub(1);
            state.ended.push_back(Ended::Request(event.ticket, event.result));
            state.begin_offered(self.now_ms(), &mut todo);
            while let Some(command) = state.store.poll_command() {
                todo.commands.push(command);
            }
        }
        let wake = !state.ended.is_empty() && std::mem::take(&mut state.waiting);
        drop(state);
        todo.reads.into_iter().for_each(|(plan, buffer)| self.start_read(plan, buffer));
        todo.commands.into_iter().for_each(|command| self.start_command(command));
        if wake {
            self.ended.notify_one();
        }
    }

    fn start_read(self: &Arc<Self>, plan: ReadPlan, buffer: BufMut) {
        let (device, offset) =
            plan.records.first().map_or((0, 0), |record| (record.device, record.head_offset));
        let shared = Arc::clone(self);
        let end = move |buffer, result| shared.read_ended(ReadEnd { plan, buffer, result });
        match self.devices.device(device) {
            Err(error) => end(buffer, Err(error)),
            Ok(device) => {
                let then = move |transfer, result| {
                    if let Transfer::Read { into, .. } = transfer {
                        end(into, result);
                    }
                };
                device.start(Transfer::Read { offset, into: buffer }, Box::new(then));
            }
        }
    }

    fn start_command(self: &Arc<Self>, command: Command<Buf>) {
        let id = command.id;
        let device = match self.devices.device(command.device) {
            Ok(device) if device.is_asynchronous() => device,
            Ok(_) | Err(_) => return self.hand_over(command),
        };
        match Transfer::of(command.op) {
            Ok(transfer) => {
                let shared = Arc::clone(self);
                let then = move |_, result: Result<(), IoError>| {
                    shared.completed(id, result.map(|()| Done::Ok));
                };
                device.start(transfer, Box::new(then));
            }
            Err(op) => self.hand_over(Command { op, ..command }),
        }
    }

    fn hand_over(&self, command: Command<Buf>) {
        // The threads live as long as this does.
        let _ = self.blocking.lock().unwrap_or_else(PoisonError::into_inner).send(command);
    }

    fn completed(self: &Arc<Self>, id: CommandId, result: Result<Done, IoError>) {
        let now_ms = self.now_ms();
        let mut state = self.lock();
        state.store.complete(now_ms, id, result);
        self.go_on(state);
    }

    fn read_ended(self: &Arc<Self>, end: ReadEnd) {
        let mut state = self.lock();
        state.under_way -= 1;
        state.ended.push_back(Ended::Read(end));
        self.go_on(state);
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }
}

impl State {
    fn begin_offered(&mut self, now_ms: u64, todo: &mut Todo) {
        while self.under_way < self.window
            && let Some(work) = self.offered.pop_front()
        {
            self.tickets += 1;
            let ticket = Ticket(self.tickets);
            self.under_way += 1;
            match work {
                Work::Put { key, blocks } => {
                    self.store.put(now_ms, CLIENT, ticket, Key::new(b"", &key), blocks);
                }
                Work::Read { key, blocks, mut buffer } => {
                    match self.store.read(now_ms, Key::new(b"", &key), 0..blocks) {
                        Ok(plan) => {
                            let length =
                                plan.records.first().map_or(0, |one| one.head_bytes + one.data_bytes);
                            buffer.resize(length);
                            todo.reads.push((plan, buffer));
                        }
                        Err(error) => {
                            self.under_way -= 1;
                            self.ended.push_back(Ended::Request(ticket, Err(error)));
                        }
                    }
                }
            }
        }
    }
}

impl ReadEnd {
    /// Checks everything that a reader checks; answers the value's length.
    pub fn verify(&self) -> Result<usize> {
        self.result?;
        let [record] = &self.plan.records[..] else { bail!("a value of one record is measured") };
        let (head, data) = self.buffer.split_at(record.head_bytes);
        let sums = record.check_head(head)?;
        let mut length = 0;
        for place in &record.blocks {
            let from = if place.in_head { head } else { data };
            record.check_block(&sums, place.block, &from[place.at..place.at + place.length])?;
            length += place.length;
        }
        Ok(length)
    }
}

/// The writer's work: cut into blocks, each with its checksum.
pub fn blocks_of(value: &Buf) -> Vec<Block<Buf>> {
    let block = |start: usize| {
        let bytes = value.slice(start..value.len().min(start + BLOCK_BYTES));
        Block { checksum: Checksum::of_block(&bytes), bytes }
    };
    (0..value.len()).step_by(BLOCK_BYTES).map(block).collect()
}

/// Bytes that do not compress.
pub fn noise(length: usize, seed: u64) -> Result<Buf> {
    let mut state = seed | 1;
    let mut buffer = BufMut::unpooled(length)?;
    for word in buffer.chunks_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes()[..word.len()]);
    }
    Ok(buffer.freeze())
}
