//! How fast one client writes to and reads from a running server, by transport, connections and size of values.
//!
//!     MEMKV_AUTH_KEY=... cargo run --release -p memkv-client --example throughput -- memkv://127.0.0.1:9900/bench
//!
//! Values are written once and read many times, so many at a time; a line for each combination says GB/s. It measures the
//! data path alone: no percentiles, no peers.

use std::time::{Duration, Instant};

use memkv_client::{Buf, Client, Config, Error, Transport};

/// Operations in flight.
const DEPTH: usize = 16;
/// Bytes of the values of one size.
const SIZE_BYTES: usize = 128 << 20;
/// How long each reading takes.
const READ_TIME: Duration = Duration::from_millis(1500);

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let uri = std::env::args().nth(1).unwrap_or_else(|| "memkv://127.0.0.1:9900/bench".to_owned());
    println!("transport connections       size   put GB/s   get GB/s");
    for transport in [Transport::Tcp, Transport::Local] {
        for connections in [1, 2, 3, 4, 5] {
            for size_bytes in [64 << 10, 1 << 20, 4 << 20] {
                let mut config = Config::from_env(&uri)?;
                config.transport = transport;
                config.settings.connections = connections;
                let client = Client::connect(config).await?;
                client.warm_up(64 << 20);
                let run = format!("{transport:?} {connections} {size_bytes}");
                let put = write(&client, &run, size_bytes).await?;
                let get = read(&client, &run, size_bytes).await?;
                println!("{transport:?}\t{connections:>14} {size_bytes:>10} {put:>10.2} {get:>10.2}");
                let keys: Vec<_> = (0..SIZE_BYTES / size_bytes).map(|at| format!("{run} {at}")).collect();
                let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
                client.delete(&keys).await?;
            }
        }
    }
    Ok(())
}

async fn write(client: &Client, run: &str, size_bytes: usize) -> Result<f64, Error> {
    let mut bytes = client.buffer(size_bytes).await?;
    bytes.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 31) as u8);
    let value: Buf = bytes.freeze();
    let count = SIZE_BYTES / size_bytes;
    let began = Instant::now();
    each(count, |at| {
        let (client, value, key) = (client.clone(), value.clone(), format!("{run} {at}"));
        async move { client.put(key.as_bytes(), &[value]).await }
    })
    .await?;
    Ok(rate(count * size_bytes, began))
}

async fn read(client: &Client, run: &str, size_bytes: usize) -> Result<f64, Error> {
    let count = SIZE_BYTES / size_bytes;
    let (mut done, began) = (0, Instant::now());
    while began.elapsed() < READ_TIME {
        each(count, |at| {
            let (client, key) = (client.clone(), format!("{run} {at}"));
            async move { client.get(key.as_bytes()).await.map(drop) }
        })
        .await?;
        done += count;
    }
    Ok(rate(done * size_bytes, began))
}

/// Runs `act` for every number below `count`, [`DEPTH`] at a time.
async fn each<F: Future<Output = Result<(), Error>> + Send + 'static>(
    count: usize,
    act: impl Fn(usize) -> F,
) -> Result<(), Error> {
    let mut running = tokio::task::JoinSet::new();
    for at in 0..count {
        if running.len() == DEPTH
            && let Some(ended) = running.join_next().await
        {
            ended.unwrap_or(Err(Error::Closed))?;
        }
        running.spawn(act(at));
    }
    while let Some(ended) = running.join_next().await {
        ended.unwrap_or(Err(Error::Closed))?;
    }
    Ok(())
}

fn rate(size_bytes: usize, began: Instant) -> f64 {
    size_bytes as f64 / began.elapsed().as_secs_f64() / 1e9
}
