//! Where the packed weights of models on the CPU are kept between loads.
//!
//! In: a home, or a folder with a key. Out: what one model's load needs of it. A cache that cannot be used costs
//! time and never a load, and is said.

use std::path::PathBuf;
use std::sync::Arc;

use tussah_inference::PackedCache;
use tussah_manifest::Digest;
use zeroize::Zeroizing;

use crate::home::Home;
use crate::keys::{self, KeyName};
use crate::ui::Ui;

/// GB that are kept where nobody says how many.
pub(crate) const WEIGHTS_CACHE_GB: u32 = 16;

/// A folder of packed weights.
#[derive(Clone, Debug)]
pub(crate) struct WeightsCache {
    /// Made when there is something to keep.
    pub(crate) folder: PathBuf,
    /// Authenticates the files.
    pub(crate) key: Zeroizing<[u8; 32]>,
    /// The most bytes of all files; 0 keeps none.
    pub(crate) bytes_max: u64,
    /// Told of a file that could not be used or written.
    pub(crate) ui: Ui,
}

impl WeightsCache {
    /// The one of a home, for its own commands.
    pub(crate) fn of_home(home: &Home, ui: &Ui) -> Option<Self> {
        match keys::load_or_create(home, KeyName::Cache) {
            Ok(key) => Some(Self {
                folder: home.root().join("cache/weights"),
                key,
                bytes_max: u64::from(WEIGHTS_CACHE_GB) * 1_000_000_000,
                ui: *ui,
            }),
            Err(error) => {
                ui.warn(&format!("packed weights are not kept: {error}"));
                None
            }
        }
    }

    /// What a load of one model needs.
    pub(crate) fn of_model(&self, model: &Digest) -> Option<PackedCache> {
        let ui = self.ui;
        (self.bytes_max > 0).then(|| PackedCache {
            folder: self.folder.clone(),
            key: *self.key,
            model: *model.as_bytes(),
            bytes_max: self.bytes_max,
            warn: Arc::new(move |text| ui.warn(text)),
        })
    }
}
