//! `abi/include/kv_store_v1.h` says what `abi/src` says. A stale one is written anew, and the test fails once.

use std::fs;
use std::path::Path;

#[test]
fn the_header_is_fresh() {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let config = cbindgen::Config::from_file(package.join("cbindgen.toml")).expect("cbindgen.toml");
    let bindings = cbindgen::Builder::new()
        .with_config(config)
        .with_src(package.join("src/code.rs"))
        .with_src(package.join("src/ffi.rs"))
        .generate()
        .expect("the sources can be read");
    let mut generated = Vec::new();
    bindings.write(&mut generated);
    let path = package.join("include/kv_store_v1.h");
    if fs::read(&path).unwrap_or_default() != generated {
        fs::create_dir_all(package.join("include")).expect("the folder can be made");
        fs::write(&path, &generated).expect("the header can be written");
        panic!("abi/include/kv_store_v1.h was stale and is written anew: look at it and commit it");
    }
}
