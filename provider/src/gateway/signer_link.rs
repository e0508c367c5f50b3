//! `SignerLink`: the gateway's end of the connection to the signer.
//!
//! In: documents to sign. Out: signed ones, or why not. Many are under way at once; each answer
//! goes to whoever asked. When the signer is gone, everybody who waits is told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::sync::{mpsc, oneshot};
use tussah_manifest::{
    Consensus, Digest, Document, EncodingError, Evidence, KeyError, PublicKey, Receipt, Request,
    RequestBody, Signature,
};

use crate::wire::{
    Content, Denial, FrameReader, FrameWriter, FromSigner, Opening, Posting, ToSigner, WireError,
};

/// Questions that wait to be sent: bounds memory where the signer is slow.
const QUESTIONS_MAX: usize = 1024;

/// Why nothing was signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignerError {
    /// The signer's own refusal.
    #[error("the signer refused")]
    Denied(#[source] Denial),
    /// The signer is gone.
    #[error("the signer has ended")]
    Gone,
    /// What it answered is not what was asked for.
    #[error("the signer's answer is no such document")]
    Answer(#[from] EncodingError),
    /// What it answered is no signature.
    #[error("the signer's answer is no signature")]
    Short,
    /// Its first words were others.
    #[error("the signer did not say whose keys it has")]
    NoHello,
    /// Its keys are none.
    #[error("the signer's keys are none")]
    Key(#[from] KeyError),
    /// The connection.
    #[error("the connection to the signer failed")]
    Wire(#[from] WireError),
}

type Answer = Result<Vec<u8>, SignerError>;
type Waiting = Arc<Mutex<Option<HashMap<u64, oneshot::Sender<Answer>>>>>;

/// A signer that answered.
#[derive(Debug)]
pub struct SignerLink {
    /// Signs receipts.
    pub provider_key: PublicKey,
    /// Signs requests of clients without a key of their own.
    pub client_key: PublicKey,
    questions: mpsc::Sender<ToSigner>,
    /// `None` once the signer is gone.
    waiting: Waiting,
    next: AtomicU64,
}

impl SignerLink {
    /// Waits for the signer's first words, and takes its answers from then on.
    ///
    /// # Errors
    /// [`SignerError`] if it has none, or they are not a signer's.
    pub async fn connect<S>(stream: S) -> Result<Self, SignerError>
    where
        S: AsyncRead + AsyncWrite + Send + 'static,
    {
        let (read, write) = tokio::io::split(stream);
        let mut reader = FrameReader::<_, FromSigner>::new(BufReader::new(read));
        let Some(FromSigner::Hello(hello)) = reader.read().await? else {
            return Err(SignerError::NoHello);
        };
        let (provider_key, client_key) = (
            PublicKey::from_bytes(hello.provider_key)?,
            PublicKey::from_bytes(hello.client_key)?,
        );
        let waiting: Waiting = Arc::new(Mutex::new(Some(HashMap::new())));
        let (questions, mut asked) = mpsc::channel(QUESTIONS_MAX);
        let mut writer = FrameWriter::new(write);
        let gone = Arc::clone(&waiting);
        tokio::spawn(async move {
            while let Some(question) = asked.recv().await {
                let mut room = writer.put(&question);
                // What waits already goes with it.
                while let (Ok(true), Ok(question)) = (&room, asked.try_recv()) {
                    room = writer.put(&question);
                }
                let sent = match room {
                    Ok(_) => writer.send().await,
                    Err(error) => Err(error),
                };
                if let Err(error) = sent {
                    tracing::error!(%error, "cannot ask the signer");
                    break;
                }
            }
            lock(&gone).take();
        });
        let answers = Arc::clone(&waiting);
        tokio::spawn(async move {
            while let Ok(Some(answer)) = reader.read().await {
                let (id, answer) = match answer {
                    FromSigner::Signed { id, document } => (id, Ok(document.0)),
                    FromSigner::Denied { id, denial } => (id, Err(SignerError::Denied(denial))),
                    FromSigner::Hello(_) => break,
                };
                let sender = lock(&answers).as_mut().and_then(|all| all.remove(&id));
                if let Some(sender) = sender {
                    // Whoever asked may have left.
                    let _ = sender.send(answer);
                }
            }
            // Dropping the senders tells everybody who waits.
            lock(&answers).take();
        });
        Ok(Self {
            provider_key,
            client_key,
            questions,
            waiting,
            next: AtomicU64::new(0),
        })
    }

    /// Whether the signer still answers.
    pub fn is_there(&self) -> bool {
        lock(&self.waiting).is_some()
    }

    /// Has a request signed with the client key.
    ///
    /// # Errors
    /// [`SignerError`].
    pub async fn sign_request(&self, body: &RequestBody) -> Result<Request, SignerError> {
        let body = Content(body.to_bytes());
        let bytes = self.ask(|id| ToSigner::SignRequest { id, body }).await?;
        Ok(Request::from_bytes(&bytes)?)
    }

    /// Has a job's account signed with the provider key.
    ///
    /// # Errors
    /// [`SignerError`].
    pub async fn sign_receipt(
        &self,
        consensus: &Consensus,
        evidence: &Evidence,
    ) -> Result<Receipt, SignerError> {
        let (consensus, evidence) = (Content(consensus.to_bytes()), Content(evidence.to_bytes()));
        let ask = |id| ToSigner::SignReceipt {
            id,
            consensus,
            evidence,
        };
        let bytes = self.ask(ask).await?;
        Ok(Receipt::from_bytes(&bytes)?)
    }

    /// Has it signed that a job's receipt is the one at its place in its channel.
    ///
    /// # Errors
    /// [`SignerError`].
    pub async fn sign_claim(
        &self,
        job: &Digest,
        opening: Opening,
    ) -> Result<Signature, SignerError> {
        let job = *job.as_bytes();
        let ask = |id| ToSigner::SignClaim { id, job, opening };
        signature(self.ask(ask).await?)
    }

    /// Has it signed that a voucher may be posted.
    ///
    /// # Errors
    /// [`SignerError`].
    pub async fn sign_posting(&self, posting: Posting) -> Result<Signature, SignerError> {
        let ask = |id| ToSigner::SignPosting { id, posting };
        signature(self.ask(ask).await?)
    }

    async fn ask(&self, question: impl FnOnce(u64) -> ToSigner) -> Answer {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        match lock(&self.waiting).as_mut() {
            Some(waiting) => waiting.insert(id, sender),
            None => return Err(SignerError::Gone),
        };
        if self.questions.send(question(id)).await.is_err() {
            return Err(SignerError::Gone);
        }
        receiver.await.unwrap_or(Err(SignerError::Gone))
    }
}

fn signature(bytes: Vec<u8>) -> Result<Signature, SignerError> {
    let bytes: [u8; 64] = bytes.try_into().map_err(|_| SignerError::Short)?;
    Ok(Signature::from_bytes(bytes))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
