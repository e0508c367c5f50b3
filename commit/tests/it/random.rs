//! Both books under random interleavings of jobs, losses and restarts, and under threads.

use std::collections::BTreeMap;
use std::sync::Mutex;

use proptest::prelude::*;
use tussah_commit::{AdmitRules, ClientBook, ProviderBook, ProviderError};
use tussah_manifest::{ExitStatus, Nanograms, Request};

use crate::fixture::*;

/// What can happen next; numbers choose among what there is.
#[derive(Debug, Clone)]
enum Event {
    Ask {
        price_max: u64,
    },
    /// The request arrives, for the first time or again.
    Arrive {
        which: usize,
    },
    /// A job spends more than it was granted so far.
    Spend {
        which: usize,
        part: u64,
    },
    Finish {
        which: usize,
        price: u64,
        fails: bool,
    },
    /// The provider sends what the client lacks.
    Deliver {
        count: u64,
    },
    Voucher {
        running: u64,
        lost: bool,
    },
    /// An old voucher arrives late.
    Replay {
        which: usize,
    },
    Restart,
}

fn event() -> impl Strategy<Value = Event> {
    let which = 0..8_usize;
    prop_oneof![
        3 => (1..IN_FLIGHT).prop_map(|price_max| Event::Ask { price_max }),
        4 => which.clone().prop_map(|which| Event::Arrive { which }),
        2 => (which.clone(), 1..IN_FLIGHT).prop_map(|(which, part)| Event::Spend { which, part }),
        4 => (which.clone(), 0..IN_FLIGHT, prop::bool::weighted(0.1))
            .prop_map(|(which, price, fails)| Event::Finish { which, price, fails }),
        3 => (0..4_u64).prop_map(|count| Event::Deliver { count }),
        3 => (0..IN_FLIGHT, prop::bool::weighted(0.3))
            .prop_map(|(running, lost)| Event::Voucher { running, lost }),
        1 => which.prop_map(|which| Event::Replay { which }),
        1 => Just(Event::Restart),
    ]
}

struct Play {
    world: World,
    folder: tempfile::TempDir,
    client: ClientBook,
    provider: ProviderBook,
    vouchers: Vec<tussah_settlement::voucher::SignedVoucher>,
    /// The receipts' digests by index: none is ever another.
    seen: BTreeMap<u64, tussah_manifest::Digest>,
}

const PARTS: AdmitRules = AdmitRules {
    grant_max: match Nanograms::new(IN_FLIGHT / 3) {
        Some(amount) => amount,
        None => panic!("an amount"),
    },
    stop_before_seconds: 600,
};

impl Play {
    fn new() -> Self {
        let (world, folder) = (World::open_with(100 * GRAM), tempfile::tempdir().unwrap());
        Self {
            client: world.client(folder.path()),
            provider: world.provider(folder.path()),
            world,
            folder,
            vouchers: Vec::new(),
            seen: BTreeMap::new(),
        }
    }

    fn outstanding(&self, which: usize) -> Option<Request> {
        let outstanding = self.client.outstanding(self.world.id()).unwrap();
        let (_, request) = outstanding.get(which % outstanding.len().max(1))?;
        Some(request.clone())
    }

    fn apply(&mut self, event: &Event) {
        let id = self.world.id();
        match *event {
            Event::Ask { price_max } => {
                let index = self.client.next_index(id).unwrap();
                self.client
                    .issue(id, &self.world.request(index, 0, price_max))
                    .unwrap();
            }
            Event::Arrive { which } => {
                let Some(request) = self.outstanding(which) else {
                    return;
                };
                match self.provider.admit(id, &request, PARTS) {
                    Ok(_) | Err(ProviderError::NotNext { .. } | ProviderError::AtRisk { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            Event::Spend { which, part } => {
                let unfinished = self.provider.unfinished(id).unwrap();
                let Some(job) = unfinished.get(which % unfinished.len().max(1)) else {
                    return;
                };
                let more = nano(job.granted.get() + part);
                match self.provider.extend(id, job.index, more, PARTS) {
                    Ok(_) | Err(ProviderError::AtRisk { .. }) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            Event::Finish {
                which,
                price,
                fails,
            } => {
                let unfinished = self.provider.unfinished(id).unwrap();
                let Some(job) = unfinished.get(which % unfinished.len().max(1)) else {
                    return;
                };
                let exit = if fails {
                    ExitStatus::HostFailure
                } else {
                    ExitStatus::Done
                };
                let price = if fails {
                    0
                } else {
                    price.min(job.granted.get())
                };
                let receipt = receipt(&job.request, price, exit, &self.world.provider_key);
                self.provider
                    .finish(id, &receipt, &self.world.provider_key)
                    .unwrap();
                let before = self.seen.insert(job.index, receipt.digest());
                assert_eq!(before, None, "index {} twice", job.index);
            }
            Event::Deliver { count } => {
                let has = self.client.view(id).unwrap().commitment.receipts;
                let from = has.saturating_sub(1);
                for (receipt, claim) in self.provider.deliveries(id, from, count).unwrap() {
                    self.client.deliver(id, &receipt, &claim).unwrap();
                }
            }
            Event::Voucher { running, lost } => {
                let promised = self.client.view(id).unwrap().promised;
                let granted = self.provider.view(id).unwrap().promised;
                let running = nano(running).min(promised).min(granted);
                let voucher = self
                    .client
                    .voucher(id, running, &self.world.client_key)
                    .unwrap();
                if !lost {
                    self.accept(&voucher);
                }
                self.vouchers.push(voucher);
            }
            Event::Replay { which } => {
                let Some(voucher) = self.vouchers.get(which % self.vouchers.len().max(1)) else {
                    return;
                };
                self.accept(&voucher.clone());
            }
            Event::Restart => {
                self.client = self.world.client(self.folder.path());
                self.provider = self.world.provider(self.folder.path());
            }
        }
    }

    fn accept(&self, voucher: &tussah_settlement::voucher::SignedVoucher) {
        match self.provider.accept(self.world.id(), voucher) {
            Ok(_) | Err(ProviderError::Lower { .. } | ProviderError::OtherRoot { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }

    fn check(&self, before: &(Nanograms, Nanograms)) -> (Nanograms, Nanograms) {
        let id = self.world.id();
        let (client, provider) = (
            self.client.view(id).unwrap(),
            self.provider.view(id).unwrap(),
        );
        assert!(
            provider.at_risk() <= nano(IN_FLIGHT),
            "{}",
            provider.at_risk()
        );
        assert!(client.commitment.receipts <= provider.commitment.receipts);
        let same = self.provider.prove_consistency(
            id,
            client.commitment.receipts,
            provider.commitment.receipts,
        );
        if client.commitment.receipts > 0 {
            same.unwrap()
                .verify(&client.commitment, &provider.commitment)
                .unwrap();
        }
        assert!(provider.vouchered() <= client.vouchered());
        assert!((client.vouchered(), provider.vouchered()) >= *before);
        (client.vouchered(), provider.vouchered())
    }

    /// Everything is delivered and paid in the end.
    fn settle(&mut self) {
        let id = &self.world.id().clone();
        loop {
            for job in self.provider.unfinished(id).unwrap() {
                let price = job.granted.get();
                let receipt = self.world.receipt(&job.request, price);
                self.provider
                    .finish(id, &receipt, &self.world.provider_key)
                    .unwrap();
            }
            self.apply(&Event::Deliver { count: 1_000 });
            let voucher = self
                .client
                .voucher(id, Nanograms::ZERO, &self.world.client_key);
            self.provider.accept(id, &voucher.unwrap()).unwrap();
            let Some(request) = self.outstanding(0) else {
                break;
            };
            self.provider.admit(id, &request, PARTS).unwrap();
        }
        let (client, provider) = (
            self.client.view(id).unwrap(),
            self.provider.view(id).unwrap(),
        );
        assert_eq!(client.commitment, provider.commitment);
        assert_eq!(client.earned, provider.earned);
        assert_eq!(provider.at_risk(), Nanograms::ZERO);
        assert_eq!(client.voucher, provider.voucher);
        let sent =
            wait(
                self.provider
                    .tend(&*self.world.chain, id, &self.world.provider_key, AT_ONCE),
            );
        sent.unwrap();
        if provider.vouchered() >= nano(STEP_MIN) {
            assert_eq!(self.world.state().redeemed, provider.vouchered());
            assert_eq!(self.world.state().commitment, provider.commitment);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    #[test]
    fn the_books_agree_and_the_risk_is_bounded(
        events in prop::collection::vec(event(), 1..80),
    ) {
        let mut play = Play::new();
        let mut before = (Nanograms::ZERO, Nanograms::ZERO);
        for event in &events {
            play.apply(event);
            before = play.check(&before);
        }
        play.settle();
    }
}

/// `PROPTEST_CASES`, or few: each case is a hundred commits.
fn cases() -> u32 {
    let cases = std::env::var("PROPTEST_CASES").ok();
    cases.and_then(|cases| cases.parse().ok()).unwrap_or(24)
}

/// Eight threads, each with jobs of its own, over one channel and two books.
#[test]
fn concurrent_jobs_never_leave_more_at_risk_than_allowed() {
    const THREADS: u64 = 8;
    const JOBS: u64 = 12;
    let (world, folder) = (World::open_with(100 * GRAM), tempfile::tempdir().unwrap());
    let (client, provider) = (world.client(folder.path()), world.provider(folder.path()));
    let id = world.id();
    // Requests arrive in the order in which they were signed, as over one connection.
    let sending = Mutex::new(());
    let highest = Mutex::new(Nanograms::ZERO);
    let catch_up = || {
        let _one = sending.lock().unwrap();
        let has = client.view(id).unwrap().commitment.receipts;
        for (receipt, claim) in provider.deliveries(id, has, u64::MAX).unwrap() {
            client.deliver(id, &receipt, &claim).unwrap();
        }
        let voucher = client
            .voucher(id, Nanograms::ZERO, &world.client_key)
            .unwrap();
        provider.accept(id, &voucher).unwrap();
    };
    let job = |thread: u64, number: u64| {
        // A fifth of what may be in flight: eight at once cannot be.
        let price = IN_FLIGHT / 5;
        let request = loop {
            let lock = sending.lock().unwrap();
            let index = client.next_index(id).unwrap();
            let index = index.min(provider.next_index(id).unwrap());
            let request = world.request(index, thread * 1_000 + number, price);
            client.issue(id, &request).unwrap();
            match provider.admit(id, &request, RULES) {
                Ok(_) => break request,
                Err(ProviderError::AtRisk { .. }) => drop(lock),
                Err(other) => panic!("{other}"),
            }
            catch_up();
            std::thread::yield_now();
        };
        let at_risk = provider.view(id).unwrap().at_risk();
        let mut highest = highest.lock().unwrap();
        *highest = (*highest).max(at_risk);
        drop(highest);
        let receipt = world.receipt(&request, price - thread);
        provider.finish(id, &receipt, &world.provider_key).unwrap();
        catch_up();
    };
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let job = &job;
            scope.spawn(move || (0..JOBS).for_each(|number| job(thread, number)));
        }
    });
    assert!(*highest.lock().unwrap() <= nano(IN_FLIGHT));
    let (ours, theirs) = (client.view(id).unwrap(), provider.view(id).unwrap());
    assert_eq!(theirs.commitment.receipts, THREADS * JOBS);
    assert_eq!(ours.commitment, theirs.commitment);
    assert_eq!(ours.voucher, theirs.voucher);
    assert_eq!(theirs.at_risk(), Nanograms::ZERO);
}
