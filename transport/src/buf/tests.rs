use super::*;

const MIB: usize = 1024 * 1024;

#[test]
fn buffers_are_aligned_and_recycled() {
    let pool = BufPool::new(BUDGET_SIZE_BYTES_MIN);
    for size_bytes in [1, 4095, 4096, 4097, 65_536, MIB, BUFFER_SIZE_BYTES_MAX] {
        let mut buffer = pool.try_take(size_bytes).unwrap();
        assert_eq!(buffer.len(), size_bytes);
        assert_eq!(buffer.as_ptr() as usize % ALIGNMENT_BYTES, 0);
        buffer.fill(7);
        let first = buffer.as_ptr();
        drop(buffer);
        assert_eq!(pool.try_take(size_bytes).unwrap().as_ptr(), first, "the same block again");
        assert_eq!(pool.available_size_bytes(), pool.budget_size_bytes());
    }
    assert!(pool.try_take(0).unwrap().is_empty());
    let too_large = pool.try_take(BUFFER_SIZE_BYTES_MAX + 1);
    assert_eq!(too_large.map(|_| ()), Err(PoolError::TooLarge { size_bytes: BUFFER_SIZE_BYTES_MAX + 1 }));
}

#[test]
fn the_budget_covers_idle_memory_of_every_size() {
    let pool = BufPool::new(BUDGET_SIZE_BYTES_MIN);
    let large: Vec<BufMut> = (0..16).map(|_| pool.try_take(MIB).unwrap()).collect();
    assert_eq!(pool.try_take(1).map(|_| ()), Err(PoolError::Exhausted));
    drop(large);
    let small: Vec<BufMut> = (0..4096).map(|_| pool.try_take(1).unwrap()).collect();
    assert_eq!(pool.resident_size_bytes(), pool.budget_size_bytes());
    drop(small);
    drop(pool.try_take(BUFFER_SIZE_BYTES_MAX).unwrap());
    assert_eq!(pool.resident_size_bytes(), pool.budget_size_bytes());
}

#[test]
fn slices_share_and_the_last_one_returns_the_block() {
    let pool = BufPool::new(BUDGET_SIZE_BYTES_MIN);
    let mut buffer = pool.try_take(10_000).unwrap();
    for (at, byte) in buffer.iter_mut().enumerate() {
        *byte = at as u8;
    }
    let whole = buffer.freeze();
    let part = whole.slice(5000..6000);
    let part_of_part = part.slice(10..20);
    assert_eq!(&part_of_part[..], &whole[5010..5020]);
    assert!(whole.is_aligned() && !part.is_aligned() && whole.slice(4096..4097).is_aligned());
    assert_eq!(whole.capacity(), 16_384);
    assert_eq!(part.capacity(), 16_384 - 5000);
    let whole = whole.try_into_mut().expect_err("it is shared");
    drop((whole, part));
    assert!(pool.available_size_bytes() < pool.budget_size_bytes());
    let mut again = part_of_part.try_into_mut().expect("it is shared no more");
    assert_eq!(again.len(), 5020);
    again.resize(again.capacity());
    drop(again);
    assert_eq!(pool.available_size_bytes(), pool.budget_size_bytes());
}

#[test]
#[should_panic = "of 8 bytes"]
fn a_slice_beyond_the_end_panics() {
    Buf::copy_of(b"12345678").unwrap().slice(4..9);
}

#[test]
fn what_is_kept_leaves_the_budget_until_it_comes_back() {
    let pool = BufPool::keeping(BUDGET_SIZE_BYTES_MIN, 24 * MIB);
    let mut kept = Vec::new();
    for n in 0..24 {
        let mut buffer = pool.try_take(MIB - 4096).unwrap();
        buffer.fill(n);
        let buffer = buffer.freeze();
        assert!(buffer.keep() && buffer.keep(), "once or twice");
        kept.push(buffer);
    }
    assert_eq!((pool.kept_size_bytes(), pool.resident_size_bytes()), (24 * MIB, 24 * MIB));
    assert_eq!(pool.available_size_bytes(), pool.budget_size_bytes());
    assert!(!pool.try_take(MIB).unwrap().freeze().keep(), "no more than it was told");
    let whole = pool.try_take(BUFFER_SIZE_BYTES_MAX).unwrap();
    assert_eq!(pool.resident_size_bytes(), 40 * MIB);
    assert!(pool.try_take(1).is_err());
    drop(whole);
    let parts = kept.split_off(8);
    assert!(parts.iter().enumerate().all(|(n, part)| part[..] == [8 + n as u8; MIB - 4096]));
    drop(parts);
    assert_eq!(pool.kept_size_bytes(), 8 * MIB);
    assert!(pool.resident_size_bytes() <= pool.budget_size_bytes() + 8 * MIB, "idle memory fits the budget");
    let small = pool.try_take(MIB).unwrap().freeze().slice(0..MIB / 2);
    assert!(!small.keep(), "half a block is not worth it");
    drop((kept, small));
    assert_eq!(pool.kept_size_bytes(), 0);
    assert_eq!(pool.available_size_bytes(), pool.budget_size_bytes());
    assert!(pool.resident_size_bytes() <= pool.budget_size_bytes());
    assert!(!Buf::copy_of(&[0; 4096]).unwrap().keep(), "of no pool");
}

#[test]
fn buffers_outlive_their_pool() {
    let pool = BufPool::new(BUDGET_SIZE_BYTES_MIN);
    let buffer = pool.try_take(100).unwrap().freeze();
    let copy = buffer.clone();
    drop((pool, buffer));
    assert_eq!(copy.len(), 100);
}

#[test]
fn huge_pages_are_lent_and_come_back() {
    let pool = BufPool::new(BUDGET_SIZE_BYTES_MIN);
    pool.use_huge_pages(BUDGET_SIZE_BYTES_MIN).unwrap();
    for _ in 0..3 {
        let mut taken: Vec<BufMut> = (0..64).map(|_| pool.try_take(100_000).unwrap()).collect();
        for (n, buffer) in taken.iter_mut().enumerate() {
            assert!(buffer.as_ptr().addr().is_multiple_of(ALIGNMENT_BYTES));
            buffer.fill(n as u8);
        }
        for (n, buffer) in taken.into_iter().enumerate() {
            assert!(buffer.iter().all(|byte| *byte == n as u8), "nobody else's bytes");
            // Nobody else can see this memory.
            assert_eq!(buffer.freeze().place(), None);
        }
    }
    assert!(pool.with_shared(|_, _| ()).is_none());
    assert_eq!(pool.available_size_bytes(), BUDGET_SIZE_BYTES_MIN);
    assert!(pool.try_take(BUFFER_SIZE_BYTES_MAX).is_ok(), "what came back joins again");
}

#[test]
fn threads_share_a_pool() {
    let pool = BufPool::new(BUDGET_SIZE_BYTES_MIN);
    std::thread::scope(|scope| {
        for seed in 0..4usize {
            let pool = pool.clone();
            scope.spawn(move || {
                for round in 0..500usize {
                    let size_bytes = 1 + (seed * 7919 + round * 104_729) % 200_000;
                    let Ok(mut buffer) = pool.try_take(size_bytes) else { continue };
                    buffer.fill(seed as u8);
                    let buffer = buffer.freeze();
                    let other = buffer.clone();
                    let reader = std::thread::spawn(move || other.iter().all(|byte| *byte == seed as u8));
                    drop(buffer);
                    assert!(reader.join().unwrap());
                }
            });
        }
    });
    assert_eq!(pool.available_size_bytes(), pool.budget_size_bytes());
}

#[tokio::test]
async fn those_who_wait_are_served_in_turn() {
    let pool = BufPool::new(BUDGET_SIZE_BYTES_MIN);
    let held = pool.try_take(BUFFER_SIZE_BYTES_MAX / 2).unwrap();
    let mut large = std::pin::pin!(pool.take(BUFFER_SIZE_BYTES_MAX));
    assert!(futures_poll(large.as_mut()).is_none());
    assert_eq!(pool.try_take(1).map(|_| ()), Err(PoolError::Exhausted), "nobody overtakes who waits");
    drop(held);
    let large = futures_poll(large.as_mut()).expect("its turn").unwrap();
    assert_eq!(large.len(), BUFFER_SIZE_BYTES_MAX);
}

#[tokio::test]
async fn who_stops_waiting_gives_the_turn_up() {
    let pool = BufPool::new(BUDGET_SIZE_BYTES_MIN);
    let held = pool.try_take(BUFFER_SIZE_BYTES_MAX / 2).unwrap();
    {
        let mut large = std::pin::pin!(pool.take(BUFFER_SIZE_BYTES_MAX));
        assert!(futures_poll(large.as_mut()).is_none());
    }
    assert!(pool.try_take(BUFFER_SIZE_BYTES_MAX / 2).is_ok());
    drop(held);
}

fn futures_poll<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}
