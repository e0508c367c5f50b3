//! Compiled kernels in a file: kept for the next start, never taken on trust.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tussah_inference::{Gpu, GpuCache, GpuOptions, Sampling, TokenId};

use crate::builder::{self, Q4_1, SMALL, session};
use crate::gpu::{gpu, on};

type Warnings = Arc<Mutex<Vec<String>>>;

/// An adapter with a cache in a folder, and what it warned of.
fn with_cache(folder: &Path) -> Option<(Arc<Gpu>, Warnings)> {
    let warnings = Warnings::default();
    let told = Arc::clone(&warnings);
    let cache = GpuCache {
        folder: folder.to_owned(),
        key: [7; 32],
        warn: Arc::new(move |text| told.lock().unwrap().push(text.to_owned())),
    };
    let options = GpuOptions {
        cache: Some(cache),
        ..GpuOptions::default()
    };
    Some((gpu(options)?, warnings))
}

fn logits(gpu: &Arc<Gpu>) -> Vec<u32> {
    let model = Arc::new(builder::llama(SMALL, Q4_1).load(&on(gpu)).unwrap());
    let mut session = session(&model, 8, Sampling::default());
    session.append(&[TokenId(1), TokenId(2)]).unwrap();
    let logits = session.logits().unwrap();
    logits.iter().map(|logit| logit.to_bits()).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn kernels_are_kept_and_a_damaged_file_is_made_anew() {
    let folder = tempfile::tempdir().unwrap();
    let Some((first, warnings)) = with_cache(folder.path()) else {
        return;
    };
    let wanted = logits(&first);
    if first.info().interface != "vulkan" {
        // Other interfaces have no such cache.
        assert_eq!(files(folder.path()), Vec::<PathBuf>::new());
        return;
    }
    let [file] = &files(folder.path())[..] else {
        panic!("one file an adapter: {:?}", files(folder.path()));
    };
    let good = fs::read(file).unwrap();
    let (again, warnings_again) = with_cache(folder.path()).unwrap();
    assert_eq!(logits(&again), wanted);
    assert_eq!(*warnings.lock().unwrap(), Vec::<String>::new());
    assert_eq!(*warnings_again.lock().unwrap(), Vec::<String>::new());

    let mut bad = good;
    *bad.last_mut().unwrap() ^= 1;
    fs::write(file, &bad).unwrap();
    let (third, warnings) = with_cache(folder.path()).unwrap();
    assert_eq!(logits(&third), wanted);
    let warned = warnings.lock().unwrap().clone();
    assert!(
        matches!(&warned[..], [one] if one.contains("damaged")),
        "{warned:?}"
    );
    assert_ne!(fs::read(file).unwrap(), bad);
    let (_, warnings) = with_cache(folder.path()).unwrap();
    assert_eq!(*warnings.lock().unwrap(), Vec::<String>::new());
}
