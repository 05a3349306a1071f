//! Chunks: their bytes, their hashes, and that they never change.

use super::Abi;
use super::store::{Chunk, Store as _, expect_all, expect_session, put_all, save};
use crate::case::{Case, Level, Outcome};
use crate::ensure;
use crate::random::Random;

pub const CASES: &[Case<Abi>] = &[
    Case {
        id: "ABI-CHUNK-1",
        level: Level::Must,
        requires: &["KVS-CHUNK-1"],
        title: "a chunk is read as it was put",
        alone: false,
        run: round_trip,
    },
    Case {
        id: "ABI-CHUNK-2",
        level: Level::Must,
        requires: &["KVS-CHUNK-1"],
        title: "chunks of every length up to 9 MiB, at its boundaries",
        alone: false,
        run: boundary_lengths,
    },
    Case {
        id: "ABI-CHUNK-3",
        level: Level::Must,
        requires: &["KVS-CHUNK-1"],
        title: "chunks of 16, 32 and 64 MiB",
        alone: false,
        run: large_chunks,
    },
    Case {
        id: "ABI-CHUNK-4",
        level: Level::Must,
        requires: &["KVS-CHUNK-1"],
        title: "chunks of zeros, of NULs at every end, of every byte",
        alone: false,
        run: any_bytes,
    },
    Case {
        id: "ABI-CHUNK-5",
        level: Level::Must,
        requires: &["KVS-CHUNK-2"],
        title: "hashes of 8 to 32 bytes, all beginning alike, are different",
        alone: false,
        run: hash_lengths,
    },
    Case {
        id: "ABI-CHUNK-6",
        level: Level::Must,
        requires: &["KVS-CHUNK-2"],
        title: "hashes that differ in one bit, anywhere, are different",
        alone: false,
        run: hash_bits,
    },
    Case {
        id: "ABI-CHUNK-7",
        level: Level::Must,
        requires: &["KVS-CHUNK-2"],
        title: "hashes may hold NULs, slashes, dots and any other byte",
        alone: false,
        run: hash_bytes,
    },
    Case {
        id: "ABI-CHUNK-8",
        level: Level::Should,
        requires: &["KVS-CHUNK-3"],
        title: "hashes of 1 to 64 bytes are accepted",
        alone: false,
        run: odd_hash_lengths,
    },
    Case {
        id: "ABI-CHUNK-9",
        level: Level::Must,
        requires: &["KVS-CHUNK-4"],
        title: "putting a stored chunk is a success and changes nothing",
        alone: false,
        run: put_again,
    },
    Case {
        id: "ABI-CHUNK-10",
        level: Level::Must,
        requires: &["KVS-CHUNK-4"],
        title: "other bytes under a stored hash do not replace it",
        alone: false,
        run: immutable,
    },
    Case {
        id: "ABI-CHUNK-11",
        level: Level::Must,
        requires: &["KVS-CHUNK-5", "KVS-THR-2"],
        title: "getting a chunk that is not stored fails",
        alone: false,
        run: missing,
    },
    Case {
        id: "ABI-CHUNK-12",
        level: Level::Should,
        requires: &["KVS-CHUNK-6"],
        title: "an empty chunk is stored or refused",
        alone: false,
        run: empty_chunk,
    },
    Case {
        id: "ABI-CHUNK-13",
        level: Level::Must,
        requires: &["KVS-CHUNK-1"],
        title: "a session of 1,500 chunks loses none",
        alone: false,
        run: many_chunks,
    },
];

fn round_trip(abi: &Abi) -> Outcome {
    let (mut random, name) = (abi.random(), abi.name("session"));
    let chunks = Chunk::several(&mut random, 10, 30_000);
    let handle = abi.open()?;
    save(&handle, &name, &chunks)?;
    for _ in 0..3 {
        expect_all(&handle, &chunks)?;
    }
    Ok(())
}

fn boundary_lengths(abi: &Abi) -> Outcome {
    let mut random = abi.random();
    let mut lengths = vec![2, 3, 5, 9 << 20];
    for power in [0, 3, 4, 6, 8, 9, 12, 16, 20, 22] {
        let boundary = 1_usize << power;
        lengths.extend([boundary - 1, boundary, boundary + 1]);
    }
    lengths.retain(|&length| length > 0);
    let handle = abi.open()?;
    for (round, lengths) in lengths.chunks(6).enumerate() {
        let chunks: Vec<Chunk> =
            lengths.iter().map(|&length| Chunk::random(&mut random, 16, length)).collect();
        let name = abi.name(&round.to_string());
        save(&handle, &name, &chunks)?;
        expect_session(&handle, &name, &chunks)?;
    }
    Ok(())
}

fn large_chunks(abi: &Abi) -> Outcome {
    let (mut random, name) = (abi.random(), abi.name("session"));
    let handle = abi.open()?;
    for length in [16 << 20, (32 << 20) + 1, 64 << 20] {
        let chunk = Chunk::random(&mut random, 32, length);
        save(&handle, &name, std::slice::from_ref(&chunk))?;
        handle.expect_chunk(&chunk)?;
    }
    Ok(())
}

fn any_bytes(abi: &Abi) -> Outcome {
    let (mut random, name) = (abi.random(), abi.name("session"));
    let mut ends = random.bytes(1000);
    ends[0] = 0;
    ends[999] = 0;
    let every = (0..=255).cycle().take(1024).collect();
    let contents = [vec![0], vec![0; 8192], vec![0xff; 4097], ends, every, b"text\0and\0more\n\r\n".to_vec()];
    // The bytes are the same in every run, so the hash is made unique instead.
    let chunks: Vec<Chunk> =
        contents.into_iter().map(|data| Chunk { hash: random.bytes(16), data }).collect();
    let handle = abi.open()?;
    save(&handle, &name, &chunks)?;
    expect_session(&handle, &name, &chunks)
}

fn hash_lengths(abi: &Abi) -> Outcome {
    different_hashes(abi, |random| {
        let longest = random.bytes(32);
        (8..=32).map(|length| longest[..length].to_vec()).collect()
    })
}

fn hash_bits(abi: &Abi) -> Outcome {
    different_hashes(abi, |random| {
        let base = random.bytes(32);
        let flipped = (0..32).map(|at| {
            let mut hash = base.clone();
            hash[at] ^= 1 << random.below(8);
            hash
        });
        flipped.chain([base.clone()]).collect()
    })
}

fn hash_bytes(abi: &Abi) -> Outcome {
    different_hashes(abi, |random| {
        let mut hash = |odd: &[u8]| {
            let mut hash = random.bytes(16);
            hash[..odd.len()].copy_from_slice(odd);
            hash
        };
        let mut hashes: Vec<Vec<u8>> = [
            b"../../x".as_slice(),
            b"/etc/passwd",
            b"..",
            b"%00%2f*?[]",
            b"\n\r\t \"'\\",
            b"\xff\xfe\xfd",
            b"\x7f\x80\xc3\x28",
        ]
        .into_iter()
        .map(&mut hash)
        .collect();
        // A hash that is read as a C string would end at the first NUL.
        let tail = hash(b"");
        for nul_at in [0, 1, 7, 15] {
            let mut hash = tail.clone();
            hash[nul_at] = 0;
            hashes.push(hash.clone());
            if let Some(after) = hash.get_mut(nul_at + 1) {
                *after = after.wrapping_add(1).max(1);
                hashes.push(hash);
            }
        }
        hashes
    })
}

fn odd_hash_lengths(abi: &Abi) -> Outcome {
    let mut random = abi.random();
    // Very short hashes are few: another run on this store may have used them. So their content follows from them.
    let handle = abi.open()?;
    for length in 1..=64 {
        let hash = random.bytes(length);
        let data = format!("content of {hash:?}").into_bytes();
        let chunk = Chunk { hash, data };
        handle.put(&chunk)?;
        handle.publish(&abi.name("flush"), &[])?;
        handle.expect_chunk(&chunk)?;
    }
    Ok(())
}

/// Puts a different chunk under each of the hashes, and expects each to be there.
fn different_hashes(abi: &Abi, hashes: impl FnOnce(&mut Random) -> Vec<Vec<u8>>) -> Outcome {
    let mut random = abi.random();
    let hashes = hashes(&mut random);
    let chunks: Vec<Chunk> = (0..)
        .zip(hashes)
        .map(|(index, hash): (usize, Vec<u8>)| Chunk { hash, data: random.bytes(200 + index) })
        .collect();
    let (half, name) = (chunks.len() / 2, abi.name("session"));
    let handle = abi.open()?;
    save(&handle, &name, &chunks[..half])?;
    for chunk in &chunks[half..] {
        handle.expect_no_chunk(&chunk.hash)?;
    }
    save(&handle, &name, &chunks)?;
    expect_all(&handle, &chunks)
}

fn put_again(abi: &Abi) -> Outcome {
    let (mut random, name) = (abi.random(), abi.name("session"));
    let chunks = Chunk::several(&mut random, 5, 2000);
    let (handle, other) = (abi.open()?, abi.open()?);
    put_all(&handle, &chunks)?;
    // Before it is flushed, after, and through a handle that did not put it.
    save(&handle, &name, &chunks)?;
    save(&handle, &name, &chunks)?;
    save(&other, &name, &chunks)?;
    expect_session(&handle, &name, &chunks)?;
    expect_session(&abi.open()?, &name, &chunks)
}

fn immutable(abi: &Abi) -> Outcome {
    let (mut random, name) = (abi.random(), abi.name("session"));
    let chunk = Chunk::random(&mut random, 16, 2000);
    let handle = abi.open()?;
    save(&handle, &name, std::slice::from_ref(&chunk))?;
    for length in [2000, 1000, 3000] {
        let forged = random.bytes(length);
        // What these return is left open; what is stored is not.
        handle.put_chunk(&chunk.hash, &forged);
        handle.put_manifest(&abi.name("flush"), &[]);
        handle.expect_chunk(&chunk)?;
        abi.open()?.expect_chunk(&chunk)?;
    }
    Ok(())
}

fn missing(abi: &Abi) -> Outcome {
    let (mut random, name) = (abi.random(), abi.name("session"));
    let handle = abi.open()?;
    for length in [8, 16, 20, 32] {
        handle.expect_no_chunk(&random.bytes(length))?;
    }
    let chunk = Chunk::random(&mut random, 32, 100);
    save(&handle, &name, std::slice::from_ref(&chunk))?;
    for length in [8, 16, 31] {
        handle.expect_no_chunk(&chunk.hash[..length])?;
    }
    handle.expect_no_chunk(&[chunk.hash.clone(), vec![0]].concat())
}

fn empty_chunk(abi: &Abi) -> Outcome {
    let (mut random, name) = (abi.random(), abi.name("session"));
    let chunk = Chunk { hash: random.bytes(16), data: Vec::new() };
    let handle = abi.open()?;
    let code = handle.put_chunk(&chunk.hash, &chunk.data);
    ensure!(code <= 0, "put_chunk of an empty chunk returned {code}");
    handle.publish(&name, b"flush")?;
    if code == 0 { handle.expect_chunk(&chunk) } else { handle.expect_no_chunk(&chunk.hash) }
}

fn many_chunks(abi: &Abi) -> Outcome {
    let (mut random, name) = (abi.random(), abi.name("session"));
    let chunks = Chunk::several(&mut random, 1500, 300);
    let handle = abi.open()?;
    save(&handle, &name, &chunks)?;
    expect_session(&handle, &name, &chunks)?;
    expect_session(&abi.open()?, &name, &chunks)
}
