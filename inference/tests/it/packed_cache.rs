//! Packed weights in a file: kept for the next load, never taken on trust.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use tussah_inference::{LoadOptions, PackedCache, Sampling, TokenId};

use crate::builder::{
    self, BF16, F16, F32, File, Numbers, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0, SMALL,
    WIDE, session,
};
use crate::gpu::mixed;

/// A cache of a folder and what it warned of.
struct Cache {
    options: LoadOptions,
    warnings: Arc<Mutex<Vec<String>>>,
}

fn cache(folder: &Path, model: u8, key: u8, bytes_max: u64) -> Cache {
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&warnings);
    let options = LoadOptions {
        threads: 2,
        packed: Some(PackedCache {
            folder: folder.to_owned(),
            key: [key; 32],
            model: [model; 32],
            bytes_max,
            warn: Arc::new(move |text| told.lock().unwrap().push(text.to_owned())),
        }),
        ..LoadOptions::default()
    };
    Cache { options, warnings }
}

impl Cache {
    fn warnings(&self) -> Vec<String> {
        self.warnings.lock().unwrap().clone()
    }
}

fn logits(file: &File, options: &LoadOptions) -> Vec<u32> {
    let model = Arc::new(file.load(options).unwrap());
    let mut session = session(&model, 8, Sampling::default());
    session.append(&[TokenId(1), TokenId(2)]).unwrap();
    let logits = session.logits().unwrap();
    logits.iter().map(|logit| logit.to_bits()).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

fn models() -> [File; 2] {
    [
        mixed(SMALL, [Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, F16, BF16]),
        mixed(WIDE, [Q4_K, Q5_K, Q6_K, F32, Q6_K, Q4_K, Q5_K]),
    ]
}

/// The same model with other weights in one matrix.
fn other(file: File) -> File {
    let mut file = file;
    let tensor = file.tensor("blk.0.attn_q.weight");
    let elements = usize::try_from(tensor.dimensions.iter().product::<u64>()).unwrap();
    tensor.data = builder::random(tensor.format, elements, &mut Numbers(99));
    file
}

#[test]
fn what_was_packed_is_taken_from_the_file() {
    for (index, file) in models().into_iter().enumerate() {
        let folder = tempfile::tempdir().unwrap();
        let within = folder.path().join("made/when/missing");
        let wanted = logits(&file, &LoadOptions::default());
        let first = cache(&within, 1, 7, u64::MAX);
        assert_eq!(logits(&file, &first.options), wanted, "model {index}");
        let kept = files(&within);
        assert_eq!(kept.len(), 1);
        let bytes = fs::read(&kept[0]).unwrap();
        let second = cache(&within, 1, 7, u64::MAX);
        assert_eq!(logits(&file, &second.options), wanted);
        assert_eq!(fs::read(&kept[0]).unwrap(), bytes);
        // Under the same digest, it is the file that counts and not the matrix.
        let changed = other(file);
        assert_ne!(logits(&changed, &LoadOptions::default()), wanted);
        assert_eq!(logits(&changed, &second.options), wanted);
        // Another model has another file.
        let third = cache(&within, 2, 7, u64::MAX);
        assert_ne!(logits(&changed, &third.options), wanted);
        assert_eq!(files(&within).len(), 2);
        for cache in [first, second, third] {
            assert_eq!(cache.warnings(), Vec::<String>::new());
        }
    }
}

/// A file of another layout would give other weights: whoever changes it changes the version in `stored.rs`, and
/// these digests.
#[test]
fn the_layout_is_that_of_its_version() {
    let digests = models().map(|file| {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path(), 1, 7, u64::MAX);
        file.load(&cache.options).unwrap();
        let bytes = fs::read(&files(folder.path())[0]).unwrap();
        blake3::hash(&bytes).to_hex().to_string()
    });
    assert_eq!(
        digests,
        [
            "f2fe3becba13dae6753ba1bc2245d009bb043451bb1e2884a7aa33b4a70c6a73",
            "342f95fb9624728dd150d9376f006a7542162a04b33c178bdd799739d9929bc9",
        ]
    );
}

#[test]
fn a_damaged_file_is_said_to_be_so_and_made_anew() {
    let [file, _] = models();
    let folder = tempfile::tempdir().unwrap();
    let wanted = logits(&file, &LoadOptions::default());
    logits(&file, &cache(folder.path(), 1, 7, u64::MAX).options);
    let path = files(folder.path()).remove(0);
    let good = fs::read(&path).unwrap();
    // The head whole, and of the rest, which has gaps that nothing depends on, whatever a matrix has.
    let steps = (0..700).chain((700..good.len()).step_by(997));
    let flipped = steps.map(|at| {
        let mut file = good.clone();
        file[at] ^= 1;
        file
    });
    let cut = [0, 1, 31, 300, good.len() / 2, good.len() - 1].map(|end| good[..end].to_vec());
    let mut said = 0;
    for damaged in flipped.chain(cut) {
        fs::write(&path, &damaged).unwrap();
        let cache = cache(folder.path(), 1, 7, u64::MAX);
        assert_eq!(logits(&file, &cache.options), wanted);
        let warnings = cache.warnings();
        assert!(warnings.len() <= 1, "{warnings:?}");
        if let [warning] = &warnings[..] {
            assert!(warning.contains("damaged"), "{warning}");
            said += 1;
            assert!(fs::read(&path).unwrap() == good);
        }
    }
    assert!(said >= 700, "{said}");
    assert_eq!(files(folder.path()).len(), 1);
}

#[test]
fn another_machines_file_is_not_used() {
    let [file, _] = models();
    let folder = tempfile::tempdir().unwrap();
    let wanted = logits(&file, &LoadOptions::default());
    logits(&file, &cache(folder.path(), 1, 7, u64::MAX).options);
    let foreign = fs::read(&files(folder.path())[0]).unwrap();
    let own = tempfile::tempdir().unwrap();
    logits(&file, &cache(own.path(), 1, 8, u64::MAX).options);
    let path = files(own.path()).remove(0);
    fs::write(&path, &foreign).unwrap();
    let again = cache(own.path(), 1, 8, u64::MAX);
    assert_eq!(logits(&file, &again.options), wanted);
    let warnings = again.warnings();
    assert!(
        warnings[0].contains("damaged or made with another key"),
        "{warnings:?}"
    );
    assert!(fs::read(&path).unwrap() != foreign);
}

#[test]
fn what_was_used_least_recently_goes() {
    let [file, _] = models();
    let folder = tempfile::tempdir().unwrap();
    let load = |model, bytes_max| {
        let cache = cache(folder.path(), model, 7, bytes_max);
        file.load(&cache.options).unwrap();
        cache.warnings()
    };
    assert_eq!(load(1, u64::MAX), Vec::<String>::new());
    let first = files(folder.path()).remove(0);
    let length = fs::metadata(&first).unwrap().len();
    assert_eq!(load(2, u64::MAX), Vec::<String>::new());
    let second = files(folder.path()).into_iter().find(|path| *path != first);
    let second = second.unwrap();
    let ago = |path: &Path, hours: u64| {
        let time = SystemTime::now() - Duration::from_secs(3600 * hours);
        fs::File::open(path).unwrap().set_modified(time).unwrap();
    };
    ago(&first, 5);
    ago(&second, 3);
    // Its use makes the first the newer one.
    load(1, u64::MAX);
    let left = folder.path().join("left by a process that ended");
    fs::write(&left, "").unwrap();
    ago(&left, 2);
    assert_eq!(load(3, 2 * length), Vec::<String>::new());
    let now = files(folder.path());
    assert!(now.len() == 2 && now.contains(&first), "{now:?}");
    // What is too large for all the room is not kept, and that is said.
    let warnings = load(4, length - 1);
    assert!(warnings[0].contains("could not be kept"), "{warnings:?}");
    assert_eq!(files(folder.path()).len(), 2);
}

#[test]
fn a_folder_that_cannot_be_made_costs_no_load() {
    let [file, _] = models();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a file");
    fs::write(&path, "").unwrap();
    let cache = cache(&path, 1, 7, u64::MAX);
    assert_eq!(
        logits(&file, &cache.options),
        logits(&file, &LoadOptions::default())
    );
    let warnings = cache.warnings();
    assert!(
        warnings.iter().any(|it| it.contains("could not be kept")),
        "{warnings:?}"
    );
}
