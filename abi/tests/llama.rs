//! A real llama.cpp session is saved, everything is killed, and new processes go on with it.
//!
//! The consumer is `abi/examples/llama`. The evidence is the logits of the continuation, byte for
//! byte: those of a run that never stopped against those of a run that was restored.

mod support;

use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use memkv_wire::manifest::{self, ManifestBlob};
use memkv_wire::{ChunkKind, HashAlgorithm};
use support::backend::{Backend, Directory, Memkv};
use support::run;
use tempfile::TempDir;

/// What `make_model.py` and the commands below fix. Of 200 tokens, 128 are shared by all sessions.
const TOKENS: &str = "200";
const TOKENS_SHARED: &str = "128";
const STEPS: &str = "16";
const VOCABULARY: usize = 512;
const SIGKILL: i32 = 9;

/// One way to split the state of a four-layer model, and the chunks that must come of it.
struct Case {
    flash_attention: bool,
    window: &'static str,
    /// Four layers times the windows of 200 tokens; without flash attention, four transposed V more.
    chunks: u64,
    /// Four layers times the windows past token 128; the transposed V are never shared.
    chunks_unshared: u64,
}

const CASES: [Case; 4] = [
    Case { flash_attention: true, window: "64", chunks: 4 * 4, chunks_unshared: 4 * 2 },
    Case { flash_attention: true, window: "8", chunks: 4 * 25, chunks_unshared: 4 * 9 },
    Case { flash_attention: false, window: "64", chunks: 4 * 4 + 4, chunks_unshared: 4 * 2 + 4 },
    Case { flash_attention: false, window: "8", chunks: 4 * 25 + 4, chunks_unshared: 4 * 9 + 4 },
];

#[test]
fn a_session_in_a_directory_survives() {
    for_each_case("a_session_in_a_directory_survives", || Box::new(Directory::new()));
}

#[test]
fn a_session_in_memkv_survives() {
    for_each_case("a_session_in_memkv_survives", || Box::new(Memkv::new()));
}

/// The engine's bytes go from its memory to the server's and back without a frame, but for chunks that are too short for that.
#[test]
#[cfg(target_os = "linux")]
fn a_session_over_rdma_survives() {
    let test = "a_session_over_rdma_survives";
    if !fs::read_dir("/sys/class/infiniband").is_ok_and(|mut devices| devices.next().is_some()) {
        return support::skip(test, "no RDMA device here, `cargo xtask test --rdma` makes one");
    }
    let Some(example) = example(test) else { return };
    for case in &CASES[..2] {
        let mut world = World::new(&example, case, Box::new(Memkv::over_rdma()));
        world.save_and_die();
        let [fetched_bytes, _] = world.backend.moved_by_rdma_bytes();
        world.save_again_and_share();
        world.backend.crash();
        world.restore_and_compare();
        let [_, put_bytes] = world.backend.moved_by_rdma_bytes();
        let long = case.window == "64";
        assert_eq!((fetched_bytes > 0, put_bytes > 0), (long, long), "{fetched_bytes} and {put_bytes} bytes");
        world.change_one_byte();
    }
}

//= MKV-MAN-5 test
/// MemKV reads manifests of its own format: one that names a chunk nobody put is not published.
#[test]
fn a_manifest_that_names_a_missing_chunk_is_refused() {
    let Some(example) = example("a_manifest_that_names_a_missing_chunk_is_refused") else { return };
    for case in &CASES {
        let world = World::new(&example, case, Box::new(Memkv::new()));
        run(&mut world.save("1", "one"));
        let last = (case.chunks - 1).to_string(); // not shared with the first session
        let output = world.save("2", "one").args(["--omit", &last]).output().expect("the example starts");
        let told = String::from_utf8_lossy(&output.stderr).contains("put_manifest answered -2");
        assert!(told, "{}", support::described(&output));
        assert!(world.restore("1", "one") == world.reference("1"), "the manifest before it is gone");
    }
}

#[test]
fn cells_out_of_order_are_sorted() {
    let Some(example) = example("cells_out_of_order_are_sorted") else { return };
    for case in &CASES {
        run(example.command("round-trip", case).args(["--window", case.window]));
    }
}

/// Two implementations of the manifest format, in two languages, over two Cap'n Proto libraries.
#[test]
fn manifests_pass_between_languages() {
    let Some(example) = example("manifests_pass_between_languages") else { return };
    for case in &CASES {
        let directory = Directory::new();
        let file = directory.manifest_file("one");
        let world = World::new(&example, case, Box::new(directory));
        run(&mut world.save("1", "one"));
        let written = read(&file);
        let blob = ManifestBlob::decode(&written).expect("the manifest that C++ wrote is valid");
        assert_describes_session_1(case, &blob);
        let mut rewritten = Vec::new();
        manifest::encode(blob.manifest(), &mut rewritten).expect("a valid manifest can be written");
        assert!(rewritten == written, "Rust writes what C++ wrote in other bytes");
    }
}

fn assert_describes_session_1(case: &Case, blob: &ManifestBlob<'_>) {
    let manifest = blob.manifest();
    assert_eq!(manifest.engine, "llama.cpp");
    assert_eq!(manifest.hash_algorithm, HashAlgorithm::Xxh3x64);
    assert_eq!(manifest.window_tokens.to_string(), case.window);
    assert_eq!(manifest.tokens.len().to_string(), TOKENS);
    assert_eq!(blob.chunks().len() as u64, case.chunks);
    let values = blob.chunks().filter(|(_, chunk)| chunk.kind == ChunkKind::Values).count();
    assert_eq!(values, if case.flash_attention { 0 } else { 4 });
    let first = blob.chunks().next().expect("there are chunks").1;
    assert_eq!((first.layer, first.token_start), (0, 0));
    assert_eq!(first.token_count.to_string(), case.window);
}

fn for_each_case(test: &str, backend: impl Fn() -> Box<dyn Backend>) {
    let Some(example) = example(test) else { return };
    for case in &CASES {
        let mut world = World::new(&example, case, backend());
        world.save_and_die();
        world.save_again_and_share();
        world.backend.crash();
        world.restore_and_compare();
        world.change_one_byte();
    }
}

// ---------------------------------------------------------------- the example

struct Example {
    directory: PathBuf,
}

/// The built example, or `None` after a skip. A build that fails for another reason is a failure.
fn example(test: &str) -> Option<Example> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        // Where build.sh alone would put it, so that both share one download.
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("llama");
        let script = support::repository().join("abi/examples/llama/build.sh");
        let output = Command::new("sh").arg(script).arg(&directory).output().expect("there is a shell");
        match output.status.code() {
            Some(0) => Ok(directory),
            Some(77) => Err(last_line(&output.stdout)),
            Some(_) | None => panic!("build.sh: {}", support::described(&output)),
        }
    });
    match built {
        Ok(directory) => Some(Example { directory: directory.clone() }),
        Err(reason) => {
            support::skip(test, reason);
            None
        }
    }
}

fn last_line(text: &[u8]) -> String {
    String::from_utf8_lossy(text).lines().last().unwrap_or("for no reason given").to_owned()
}

impl Example {
    fn command(&self, name: &str, case: &Case) -> Command {
        let mut command = Command::new(self.directory.join("llama_session"));
        command.arg(name).arg("--model").arg(self.directory.join("tiny.gguf"));
        command.args(["--flash-attention", if case.flash_attention { "1" } else { "0" }]);
        command
    }
}

// ---------------------------------------------------------------- one case in one store

struct World<'a> {
    example: &'a Example,
    case: &'a Case,
    backend: Box<dyn Backend>,
    files: TempDir,
}

impl<'a> World<'a> {
    fn new(example: &'a Example, case: &'a Case, backend: Box<dyn Backend>) -> Self {
        World { example, case, backend, files: TempDir::new().expect("a temporary directory") }
    }

    /// The engine ends by SIGKILL the moment `put_manifest` returned.
    fn save_and_die(&self) {
        let output = self.save("1", "one").args(["--die", "1"]).output().expect("the example starts");
        assert_eq!(output.status.signal(), Some(SIGKILL), "{}", support::described(&output));
        assert_eq!(chunks_reported(&output), self.case.chunks);
        assert_eq!(self.backend.chunks_stored(), self.case.chunks);
    }

    fn save_again_and_share(&self) {
        run(&mut self.save("1", "one"));
        assert_eq!(self.backend.chunks_stored(), self.case.chunks, "a warm save stores nothing");
        run(&mut self.save("2", "two"));
        let stored = self.backend.chunks_stored() - self.case.chunks;
        assert_eq!(stored, self.case.chunks_unshared, "a second session stores what it does not share");
    }

    fn restore_and_compare(&self) {
        for (session, name) in [("1", "one"), ("2", "two")] {
            let expected = self.reference(session);
            assert_says_something(&expected);
            assert!(self.restore(session, name) == expected, "session {session} went on differently");
        }
    }

    /// The comparison above can fail: a byte of K, and, in the last chunk, one of V.
    fn change_one_byte(&self) {
        let expected = self.reference("1");
        let last = (self.case.chunks - 1).to_string();
        for (chunk, byte) in [("0", "1"), (last.as_str(), "2047")] {
            run(self
                .in_store("tamper")
                .args(["--name", "one", "--to", "changed", "--chunk", chunk, "--byte", byte]));
            assert!(self.restore("1", "changed") != expected, "chunk {chunk} does not matter");
        }
    }

    fn reference(&self, session: &str) -> Vec<u8> {
        let logits = self.files.path().join("reference");
        let mut command = self.example.command("reference", self.case);
        run(with_prompt(&mut command, session).args(["--steps", STEPS, "--logits"]).arg(&logits));
        read(&logits)
    }

    fn save(&self, session: &str, name: &str) -> Command {
        let mut command = self.in_store("save");
        with_prompt(&mut command, session).args(["--name", name, "--window", self.case.window]);
        command
    }

    fn restore(&self, session: &str, name: &str) -> Vec<u8> {
        let logits = self.files.path().join("restored");
        let mut command = self.in_store("restore");
        with_prompt(&mut command, session).args(["--name", name, "--steps", STEPS, "--logits"]).arg(&logits);
        run(&mut command);
        read(&logits)
    }

    fn in_store(&self, name: &str) -> Command {
        let mut command = self.example.command(name, self.case);
        command.args(["--store", &self.backend.uri()]);
        self.backend.configure(&mut command);
        command
    }
}

fn with_prompt<'a>(command: &'a mut Command, session: &str) -> &'a mut Command {
    command.args(["--tokens", TOKENS, "--shared", TOKENS_SHARED, "--session", session])
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).expect("the example wrote its logits")
}

fn chunks_reported(output: &Output) -> u64 {
    let text = String::from_utf8_lossy(&output.stdout);
    text.trim().strip_prefix("chunks ").and_then(|count| count.parse().ok()).expect("a count of chunks")
}

/// Logits that are all alike, or not numbers, would be equal whatever was restored.
fn assert_says_something(logits: &[u8]) {
    let vectors: Vec<&[u8]> = logits.chunks_exact(VOCABULARY * size_of::<f32>()).collect();
    assert_eq!(vectors.len().to_string(), STEPS);
    for (step, vector) in vectors.iter().enumerate() {
        let values = vector.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        assert!(values.clone().all(f32::is_finite), "step {step}");
        let (low, high) = values.fold((f32::MAX, f32::MIN), |(low, high), v| (low.min(v), high.max(v)));
        assert!(high - low > 1.0, "step {step} has no opinion");
        assert!(!vectors[..step].contains(vector), "step {step} repeats another");
    }
}
