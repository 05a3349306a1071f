//! Drawn messages: they come back as they went, and between them they have every field of the schema.

use std::collections::BTreeSet;

use crate::support::{Event, ROOTS};
use memkv_codegen::model::{Kind, Model, Struct};
use memkv_wire::manifest::ManifestBlob;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

proptest! {
    #![proptest_config(Config::with_cases(256))]

    #[test]
    fn messages_come_back_as_they_went(bytes in vec(any::<u8>(), 0..4096)) {
        for root in ROOTS {
            root.assert_round_trip(&bytes);
        }
    }

    #[test]
    fn encoding_again_gives_the_same_bytes(bytes in vec(any::<u8>(), 0..2048)) {
        for root in ROOTS {
            let buf = root.drawn(&bytes);
            let again = root.reencoded(buf.control()).unwrap().unwrap();
            prop_assert_eq!(again.control(), buf.control());
        }
    }

    #[test]
    fn drawn_manifest_blobs_are_manifests(bytes in vec(any::<u8>(), 0..2048)) {
        let mut blob = Vec::new();
        memkv_wire::arbitrary::manifest_blob(&mut arbitrary::Unstructured::new(&bytes), &mut blob).unwrap();
        let read = ManifestBlob::decode(&blob).unwrap();
        prop_assert_eq!(read.chunks().len(), read.manifest().chunks.len());
        let mut again = Vec::new();
        memkv_wire::manifest::encode(read.manifest(), &mut again).unwrap();
        prop_assert_eq!(again, blob);
    }
}

/// Every field and arm that a message may have, by struct: `Write.key`.
fn fields_of_schema() -> BTreeSet<String> {
    let model = memkv_codegen::load(include_bytes!("../../schema/memkv.cgr")).unwrap();
    let roots = model.structs.iter().filter(|structure| structure.message.is_some());
    let mut fields = BTreeSet::new();
    for root in roots {
        collect(&model, root, &mut fields);
    }
    fields
}

fn collect(model: &Model, structure: &Struct, fields: &mut BTreeSet<String>) {
    for field in structure.all_fields() {
        fields.insert(format!("{}.{}", structure.name, field.name));
        let mut kind = &field.kind;
        while let Kind::List(element) = kind {
            kind = element;
        }
        if let Kind::Struct(id) = kind {
            collect(model, model.structure(*id).unwrap(), fields);
        }
    }
}

/// The same names as the visitor tells them, by the struct it is in.
fn fields_visited(model: &Model, root: &str, events: &[Event], fields: &mut BTreeSet<String>) {
    let mut inside: Vec<&Struct> = Vec::new();
    for event in events {
        let name = match event {
            Event::Enter(name) => match inside.last() {
                None => {
                    inside.push(model.struct_named(root).unwrap());
                    continue;
                }
                Some(_) => name,
            },
            Event::Leave => {
                inside.pop();
                continue;
            }
            Event::LeaveList => continue,
            Event::EnterList(name, _) | Event::Arm(name) => name,
            Event::Bool(name, _) | Event::Unsigned(name, _) | Event::Signed(name, _) => name,
            Event::Data(name, _) | Event::Text(name, _) | Event::Enum(name, _) => name,
        };
        let parent = *inside.last().unwrap();
        fields.insert(format!("{}.{name}", parent.name));
        if matches!(event, Event::Enter(_)) {
            let field = parent.all_fields().find(|field| field.name == *name).unwrap();
            let mut kind = &field.kind;
            while let Kind::List(element) = kind {
                kind = element;
            }
            let Kind::Struct(id) = kind else { panic!("{name} is no struct") };
            inside.push(model.structure(*id).unwrap());
        }
    }
}

#[test]
fn draws_reach_every_field_and_the_visitor_tells_of_each() {
    let model = memkv_codegen::load(include_bytes!("../../schema/memkv.cgr")).unwrap();
    let mut runner =
        TestRunner::new_with_rng(Config::default(), TestRng::from_seed(RngAlgorithm::ChaCha, &[17; 32]));
    let mut visited = BTreeSet::new();
    for _ in 0..700 {
        let bytes = vec(any::<u8>(), 1024).new_tree(&mut runner).unwrap().current();
        for root in ROOTS {
            let buf = root.drawn(&bytes);
            let events = root.events(buf.control()).unwrap();
            fields_visited(&model, &format!("{root:?}"), &events.0, &mut visited);
        }
    }
    let (unknown, known): (BTreeSet<_>, _) = visited.into_iter().partition(|name| name.ends_with(".unknown"));
    assert_eq!(known, fields_of_schema());
    assert!(!unknown.is_empty(), "no draw has an arm that this version does not know");
}
