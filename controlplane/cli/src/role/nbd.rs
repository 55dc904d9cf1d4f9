//! `ogive nbd`: the gateway's loop on its reactor, and beside it a task that attaches the volumes,
//! keeps them attached, and answers what the loop asks of the metadata servers.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, bail};
use ogive_api::types::{Attachment, KeepAlive, KeptAlive, PathUse};
use ogive_api::{ApiError, MdsClient, Refusal};
use ogive_client::{ClientOptions, Topology, VolumeError, VolumeSpec};
use ogive_gateway::{Ask, Gateway, GatewayConfig, NbdListen, ServedVolume, Tell};
use ogive_rpc::transport::Endpoint;
use ogive_types::{CopysetId, Epoch, SegmentId, SessionId, VolumeId};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::LocalSet;
use uuid::Uuid;

use super::{asked_to_stop, checks, paths, runtime};
use crate::Usage;
use crate::args::NbdArgs;

/// Between two tries to reach the metadata servers at the start.
const RETRY: Duration = Duration::from_millis(300);
/// How often to look whether the loop still runs.
const LOOK: Duration = Duration::from_millis(500);
/// How long a detachment may take at the end; a session that is not detached runs out by itself.
const DETACH_WITHIN: Duration = Duration::from_secs(2);
/// Signs of life in one lease, so that one or two may be lost.
const BEATS_PER_LEASE: u64 = 3;

/// Runs a gateway until it is asked to stop.
pub fn run(args: &NbdArgs) -> anyhow::Result<()> {
    let listen = listen(args)?;
    checks::gateway(args.transport)?;
    let mds = MdsClient::new(&args.mds.mds)?;
    LocalSet::new().block_on(&runtime()?, serve(args, mds, listen))
}

fn listen(args: &NbdArgs) -> anyhow::Result<Vec<NbdListen>> {
    let mut listen = Vec::new();
    for path in &args.sockets {
        listen.push(NbdListen::Unix(std::path::absolute(path)?));
    }
    for text in &args.listen {
        let found: Vec<SocketAddr> =
            text.to_socket_addrs().map(Iterator::collect).map_err(|e| {
                Usage(format!("--listen {text}: {e}; write HOST:PORT, such as 127.0.0.1:10809"))
            })?;
        listen.extend(found.into_iter().take(1).map(NbdListen::Tcp));
    }
    if listen.is_empty() {
        bail!(Usage("give --socket PATH or --listen HOST:PORT, or both".to_owned()));
    }
    Ok(listen)
}

async fn serve(args: &NbdArgs, mds: MdsClient, listen: Vec<NbdListen>) -> anyhow::Result<()> {
    let mut attached = Vec::new();
    let attaching = async {
        for name in &args.volumes {
            attached.push(attach(&mds, name, args.force).await?);
        }
        anyhow::Ok(())
    };
    let stopped = tokio::select! {
        result = attaching => result.map(|()| None),
        signal = asked_to_stop() => Ok(Some(signal)),
    };
    let result = match stopped {
        Ok(None) => export(args, &mds, listen, &attached).await,
        Ok(Some(signal)) => {
            tracing::info!("{signal}: stopping");
            Ok(())
        }
        Err(error) => Err(error),
    };
    detach(&mds, &attached).await;
    result
}

/// Attaches a volume, however long it takes to find a leader.
async fn attach(mds: &MdsClient, name: &str, force: bool) -> anyhow::Result<Attachment> {
    let me = format!("nbd on {}, pid {}", checks::host_name()?, std::process::id());
    loop {
        match mds.attach_volume(name, &me, force).await {
            Ok(attachment) => {
                tracing::info!(volume = name, epoch = %attachment.epoch, "attached");
                return Ok(attachment);
            }
            Err(error) if error.refusal().is_some() => {
                let held = error.refusal() == Some(Refusal::VolumeAttached);
                let hint = if held { " (--force takes it over)" } else { "" };
                return Err(error).with_context(|| format!("cannot attach volume {name}{hint}"));
            }
            Err(error) => tracing::warn!(volume = name, %error, "not attached yet, trying again"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn detach(mds: &MdsClient, attached: &[Attachment]) {
    let mds = mds.with_deadline(DETACH_WITHIN);
    for Attachment { volume, session, .. } in attached {
        if let Err(error) = mds.detach_volume(volume.id, *session).await {
            tracing::warn!(volume = volume.name, %error, "not detached; its lease runs out");
        }
    }
}

async fn export(
    args: &NbdArgs,
    mds: &MdsClient,
    listen: Vec<NbdListen>,
    attached: &[Attachment],
) -> anyhow::Result<()> {
    let config = config(args, listen, attached)?;
    let (to_us, asked) = unbounded_channel();
    // The receiver outlives the loop; only at the very end may nobody listen any more.
    let ask = Box::new(move |ask| drop(to_us.send(ask)));
    let gateway = Rc::new(Gateway::start(config, ask)?);
    for place in gateway.listening() {
        tracing::info!(%place, volumes = args.volumes.join(","), "gateway listens");
    }
    let control = Rc::new(Control {
        mds: mds.clone(),
        gateway: Rc::clone(&gateway),
        attached: attached.to_vec(),
        asking: RefCell::default(),
        paths: RefCell::default(),
    });
    let work = async {
        tokio::join!(Rc::clone(&control).answer(asked), control.keep_alive());
    };
    tokio::select! {
        () = work => {}
        () = until_dead(&gateway) => bail!("the gateway's loop ended; the messages above say why"),
        signal = asked_to_stop() => tracing::info!("{signal}: finishing what is in flight"),
    }
    while gateway.is_alive() {
        gateway.tell(Tell::Drain);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

async fn until_dead(gateway: &Gateway) {
    while gateway.is_alive() {
        tokio::time::sleep(LOOK).await;
    }
}

fn config(
    args: &NbdArgs,
    listen: Vec<NbdListen>,
    attached: &[Attachment],
) -> anyhow::Result<GatewayConfig> {
    let io_timeout = args.io_timeout.map(Duration::from_secs);
    Ok(GatewayConfig {
        listen,
        volumes: attached.iter().map(|a| served(a, args.read_only)).collect(),
        options: ClientOptions { io_timeout, ..ClientOptions::default() },
        buffer_bytes: usize::try_from(args.buffers).context("--buffers is too large")?,
        poll: args.poll.mode(args.spin_us, 1),
        core: args.core,
        seed: Uuid::new_v4().as_u64_pair().0,
        transport: args.transport,
    })
}

fn served(attachment: &Attachment, read_only: bool) -> ServedVolume {
    let volume = &attachment.volume;
    let spec = VolumeSpec {
        volume: volume.id,
        size_bytes: volume.size_bytes,
        layout: volume.layout,
        epoch: attachment.epoch,
        session: attachment.session,
        cluster: attachment.cluster,
    };
    let credential = paths::credential(&attachment.credential);
    ServedVolume { name: volume.name.clone(), spec, credential, read_only }
}

/// A question to the metadata servers that is under way. The loop repeats what is not answered
/// soon, and each question must be asked only once at a time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Question {
    Segment(SegmentId, bool),
    Topology,
}

/// An attachment that is kept alive, and what the loop was told of it.
struct Alive<'a> {
    attachment: &'a Attachment,
    size_bytes: u64,
    token_not_after_s: u64,
}

impl Alive<'_> {
    fn of(attachment: &Attachment) -> Alive<'_> {
        let size_bytes = attachment.volume.size_bytes;
        let token_not_after_s = attachment.credential.not_after_s;
        Alive { attachment, size_bytes, token_not_after_s }
    }
}

struct Control {
    mds: MdsClient,
    gateway: Rc<Gateway>,
    attached: Vec<Attachment>,
    asking: RefCell<BTreeSet<Question>>,
    /// What the loop last said of its paths.
    paths: RefCell<BTreeMap<VolumeId, Vec<PathUse>>>,
}

impl Control {
    /// Answers what the loop asks, each question in a task of its own.
    async fn answer(self: Rc<Self>, mut asked: UnboundedReceiver<Ask>) {
        while let Some(ask) = asked.recv().await {
            let question = match ask {
                Ask::Segment { segment, allocate } => Question::Segment(segment, allocate),
                Ask::Topology => Question::Topology,
                Ask::Lost { volume, reason } => {
                    let volume = self.name(volume);
                    tracing::error!(volume, "{reason}; its I/O fails from now on");
                    continue;
                }
                Ask::Paths { volume, paths } => {
                    self.paths.borrow_mut().insert(volume, paths::told(&paths));
                    continue;
                }
            };
            if self.asking.borrow_mut().insert(question) {
                let control = Rc::clone(&self);
                tokio::task::spawn_local(async move {
                    control.ask(question).await;
                    control.asking.borrow_mut().remove(&question);
                });
            }
        }
    }

    /// Asks the metadata servers. When they cannot be reached nothing is told, and the loop asks
    /// again.
    async fn ask(&self, question: Question) {
        let tell = match question {
            Question::Topology => self.topology().await.map(Tell::Topology),
            Question::Segment(segment, allocate) => match self.segment(segment, allocate).await {
                Ok(copysets) => Ok(Tell::Segment(segment, copysets)),
                Err(error) => match refused(&error) {
                    Some(why) => {
                        let volume = self.name(segment.volume);
                        tracing::error!(volume, segment = segment.number, %error, "no space given");
                        Ok(Tell::SegmentRefused(segment, why))
                    }
                    None => Err(error),
                },
            },
        };
        match tell.map(|tell| self.gateway.tell(tell)) {
            Ok(true) => {}
            Ok(false) => tracing::warn!("the loop is too far behind to be told; it will ask again"),
            Err(error) => tracing::warn!(%error, "no answer from the metadata servers"),
        }
    }

    async fn topology(&self) -> Result<Topology, ApiError> {
        let topology = self.mds.get_topology(0).await?.unwrap_or_default();
        let endpoints = topology.endpoints.into_iter().map(|(at, text)| (at, Endpoint(text)));
        Ok(Topology { copysets: topology.copysets, endpoints: endpoints.collect() })
    }

    async fn segment(
        &self,
        segment: SegmentId,
        allocate: bool,
    ) -> Result<Option<Vec<CopysetId>>, ApiError> {
        let SegmentId { volume, number } = segment;
        let attached = self.session(volume);
        if allocate && let Some((session, epoch)) = attached {
            return self.mds.allocate_segment(volume, number, session, epoch).await.map(Some);
        }
        let epoch = attached.map(|(_, epoch)| epoch);
        let found = self.mds.get_segments(volume, number, 1, epoch).await?;
        Ok(found.segments.get(&number).cloned())
    }

    /// Gives signs of life, and hears of new sizes, of new tokens, and of sessions that were ended.
    async fn keep_alive(&self) {
        let lease = self.attached.iter().map(|a| a.lease_ms).min().unwrap_or(1000);
        let mut alive: Vec<Alive<'_>> = self.attached.iter().map(Alive::of).collect();
        loop {
            // Said with the next sign of life.
            self.gateway.tell(Tell::Report);
            tokio::time::sleep(Duration::from_millis(lease / BEATS_PER_LEASE)).await;
            let mut lost = BTreeSet::new();
            for one in &mut alive {
                let volume = &one.attachment.volume;
                match self.mds.keep_alive(self.sign_of_life(one)).await {
                    Ok(kept) => self.heard(one, &kept),
                    Err(error) if error.refusal().is_some() => {
                        tracing::error!(volume = volume.name, %error, "the session has ended");
                        if self.gateway.tell(Tell::Expired(volume.id)) {
                            lost.insert(volume.id);
                        }
                    }
                    Err(error) => {
                        tracing::warn!(volume = volume.name, %error, "not kept alive; I/O goes on");
                    }
                }
            }
            alive.retain(|one| !lost.contains(&one.attachment.volume.id));
        }
    }

    fn sign_of_life(&self, one: &Alive<'_>) -> KeepAlive {
        let id = one.attachment.volume.id;
        KeepAlive {
            volume: id,
            session: one.attachment.session,
            token_not_after_s: one.token_not_after_s,
            paths: self.paths.borrow().get(&id).cloned().unwrap_or_default(),
        }
    }

    /// What is new goes to the loop; what it cannot take now comes again.
    fn heard(&self, one: &mut Alive<'_>, kept: &KeptAlive) {
        let volume = &one.attachment.volume;
        if kept.size_bytes != one.size_bytes {
            tracing::info!(volume = volume.name, bytes = kept.size_bytes, "resized");
            if self.gateway.tell(Tell::Resized(volume.id, kept.size_bytes)) {
                one.size_bytes = kept.size_bytes;
            }
        }
        if let Some(given) = &kept.credential
            && self.gateway.tell(Tell::Credential(volume.id, paths::credential(given)))
        {
            one.token_not_after_s = given.not_after_s;
        }
    }

    fn session(&self, volume: VolumeId) -> Option<(SessionId, Epoch)> {
        let found = self.attached.iter().find(|a| a.volume.id == volume);
        found.map(|a| (a.session, a.epoch))
    }

    fn name(&self, volume: VolumeId) -> &str {
        let found = self.attached.iter().find(|a| a.volume.id == volume);
        found.map_or("unknown", |a| &a.volume.name)
    }
}

/// What a refusal to give space means for the I/O that needs it; `None` for one that may pass.
fn refused(error: &ApiError) -> Option<VolumeError> {
    match error.refusal()? {
        Refusal::NoCopysets => None,
        Refusal::StaleEpoch | Refusal::SessionGone | Refusal::VolumeNotFound => {
            Some(VolumeError::Fenced)
        }
        _ => Some(VolumeError::Io("the metadata servers refuse to give it space")),
    }
}
