//! Both books of a channel whose client and provider are this host.
//!
//! In: a channel, receipts at its places. Out: books that agree, with a voucher over all of it.
//! Whoever uses them holds the channel: a run that goes on would look like one that was cut off.

use std::collections::BTreeMap;

use tussah_commit::Unfinished;
use tussah_manifest::{
    Consensus, Determinism, Digest, Domain, Evidence, ExitStatus, Label, Nanograms, Receipt,
    Request, Version,
};
use tussah_provider::{ledger::LedgerView, signer::Jobs as _};
use tussah_settlement::voucher::ChannelId;

use crate::{
    channels::{Channels, Held, Known, client_failure, provider_failure},
    failure::Failure,
    home::Home,
    serve,
};

/// The books of a channel that is held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Books<'a> {
    channels: &'a Channels,
    known: &'a Known,
}

impl<'a> Books<'a> {
    pub(crate) const fn new(channels: &'a Channels, known: &'a Known, _held: &Held) -> Self {
        Self { channels, known }
    }

    const fn id(&self) -> &ChannelId {
        &self.known.id
    }

    /// Puts a receipt at its place, in both books, and pays for it; what is promised in all.
    ///
    /// # Errors
    /// A host failure if a book cannot be written.
    pub(crate) fn finish(&self, receipt: &Receipt) -> Result<Nanograms, Failure> {
        let provider = &self.channels.provider;
        let finished = provider.finish(self.id(), receipt, &self.channels.provider_key);
        finished.map_err(provider_failure)?;
        self.deliver()
    }

    /// What the provider's role has and the client's lacks; and a voucher for all of it, which is
    /// no less than the chain has credited.
    fn deliver(&self) -> Result<Nanograms, Failure> {
        let (client, provider) = (&self.channels.client, &self.channels.provider);
        let has = client.view(self.id()).map_err(client_failure)?;
        let has = has.commitment.receipts;
        let deliveries = provider.deliveries(self.id(), has, u64::MAX);
        for (receipt, claim) in deliveries.map_err(provider_failure)? {
            let delivered = client.deliver(self.id(), &receipt, &claim);
            delivered.map_err(client_failure)?;
        }
        let view = client.view(self.id()).map_err(client_failure)?;
        let comes_to = view.earned.max(view.vouchered());
        self.known.require_credited(comes_to)?;
        let key = &self.channels.client_key;
        let voucher = client.voucher(self.id(), Nanograms::ZERO, key);
        let voucher = voucher.map_err(client_failure)?;
        let accepted = provider.accept(self.id(), &voucher);
        accepted.map_err(provider_failure)?;
        Ok(voucher.voucher.amount)
    }

    /// Fills the places of runs that were cut off. Those of jobs that the daemon has accepted are
    /// its own: it runs them when it starts again, and a second receipt for a place costs the bond.
    ///
    /// # Errors
    /// A host failure if a book cannot be written, or the daemon has to start first; then nothing
    /// was filled.
    pub(crate) fn recover(&self, home: &Home) -> Result<(), Failure> {
        let provider = &self.channels.provider;
        let unfinished = provider.unfinished(self.id()).map_err(provider_failure)?;
        require_none_of_the_daemon(home, &unfinished)?;
        for job in unfinished {
            let receipt = self.failed(&job.request)?;
            let finished = provider.finish(self.id(), &receipt, &self.channels.provider_key);
            finished.map_err(provider_failure)?;
        }
        let view = provider.view(self.id()).map_err(provider_failure)?;
        if view.commitment.receipts > 0 {
            self.deliver()?;
        }
        Ok(())
    }

    /// A receipt that says that nothing was run, and costs nothing.
    ///
    /// # Errors
    /// A host failure if it cannot be signed.
    pub(crate) fn failed(&self, request: &Request) -> Result<Receipt, Failure> {
        let body = &request.body;
        let label = |text: &str| Label::new(text).map_err(Failure::host);
        let consensus = Consensus {
            version: Version::V1,
            job: body.job_id(),
            module: body.module,
            manifest: body.manifest,
            models: BTreeMap::new(),
            output: Digest::salted(&body.nonce.derive_salt(), Domain::Output, &[]),
            exit: ExitStatus::HostFailure,
            determinism: Determinism::NotRerunnable,
            // There was no run, so there is no profile of one.
            profile: Digest::from_bytes([0; 32]),
            fuel_used: 0,
            inference_units_used: 0,
            price_nanograms: Nanograms::ZERO,
            channel: body.channel,
        };
        let evidence = Evidence {
            host_build: label(concat!("tussah ", env!("CARGO_PKG_VERSION")))?,
            wasm_engine: label("none")?,
            inference_engine: label("none")?,
            kernels: None,
            adapter: None,
            driver: None,
            threads: 0,
            wall_ns: 0,
            gpu_ns: None,
            transcript: Digest::from_bytes([0; 32]),
        };
        Receipt::sign(consensus, evidence, &self.channels.provider_key).map_err(Failure::host)
    }
}

/// That the daemon's ledger has none of these jobs.
fn require_none_of_the_daemon(home: &Home, unfinished: &[Unfinished]) -> Result<(), Failure> {
    let path = home.root().join(serve::FOLDER).join(serve::LEDGER);
    if unfinished.is_empty() || !path.is_file() {
        return Ok(());
    }
    let failed = |error: Box<dyn std::error::Error + Send + Sync>| {
        Failure::host(error)
            .context("cannot tell whose jobs have places in the channel")
            .help("start `tussah serve` once: it brings its ledger up to date")
    };
    let mut ledger = LedgerView::open(&path).map_err(|error| failed(error.into()))?;
    for Unfinished { index, job, .. } in unfinished {
        if ledger
            .job(job)
            .map_err(|error| failed(error.into()))?
            .is_some()
        {
            let message = format!(
                "place {index} of the channel is that of job {job}, which `tussah serve` has \
                 accepted and not ended"
            );
            return Err(Failure::host(message).help(
                "start `tussah serve`, and run the command again when its jobs have ended and it \
                 has",
            ));
        }
    }
    Ok(())
}
