//! Manifest blobs: any bytes, and messages under a header that holds.

use arbitrary::Unstructured;
use memkv_wire::arbitrary::manifest_blob;
use memkv_wire::checksum;
use memkv_wire::manifest::{ManifestBlob, encode};

use crate::messages::Walk;

const HEADER_SIZE_BYTES: usize = 32;

/// The first byte says what the others are: a blob; a message, for which a header is made; or what a blob is drawn from,
/// a byte of which is then changed.
pub fn run(data: &[u8]) {
    let Some((&mode, rest)) = data.split_first() else { return };
    match mode % 3 {
        0 => decode(rest),
        1 => decode(&with_header(rest)),
        _ => {
            let mut blob = Vec::new();
            let mut u = Unstructured::new(rest);
            let (at, change) = (u.arbitrary::<u16>().unwrap_or(0), u.arbitrary::<u8>().unwrap_or(0));
            if manifest_blob(&mut u, &mut blob).is_err() {
                return;
            }
            assert!(ManifestBlob::decode(&blob).is_ok(), "what is drawn can be read");
            decode(&blob);
            let at = usize::from(at) % blob.len();
            blob[at] ^= change;
            let changed = with_header(&blob[HEADER_SIZE_BYTES.min(blob.len())..]);
            decode(&changed);
            if change != 0 {
                assert!(ManifestBlob::decode(&blob).is_err(), "byte {at} is under no checksum");
            }
        }
    }
}

fn with_header(message: &[u8]) -> Vec<u8> {
    let message = &message[..message.len() / 8 * 8];
    let mut head = b"MKVMANIF\x01\0\0\0".to_vec();
    head.extend_from_slice(&((message.len() / 8) as u32).to_le_bytes());
    let sum = checksum::block(&[&head, message].concat());
    [&head[..], &sum, message].concat()
}

fn decode(blob: &[u8]) {
    let Ok(read) = ManifestBlob::decode(blob) else { return };
    read.manifest().visit(&mut Walk::default());
    assert!(read.chunks().all(|(hash, chunk)| hash.len() == read.hash_size_bytes() && chunk.length > 0));
    let mut again = Vec::new();
    if encode(read.manifest(), &mut again).is_ok() {
        let second = ManifestBlob::decode(&again).expect("what was encoded can be read");
        assert_eq!(second.manifest(), read.manifest());
    }
}
