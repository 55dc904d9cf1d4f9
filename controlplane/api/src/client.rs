//! A client that finds the leader by itself.
//!
//! It asks the server that led last. A server that does not lead names the leader, which is asked
//! next; one that cannot be reached or does not answer in time is skipped, and after a full round
//! comes a pause. This goes on until the call's deadline. Every call may be made twice by such a
//! retry; the calls that change something are safe against that: they are idempotent, or carry an
//! id by which the leader knows the second attempt.
//!
//! It runs on tokio. Threads of the data plane talk to a task that owns it.
#![allow(clippy::disallowed_methods)] // A shell: it owns the calls' deadlines and its sockets.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use ogive_types::{CopysetId, Epoch, SessionId, VolumeId};
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use uuid::Uuid;

use crate::convert;
use crate::error::ApiError;
use crate::limits::*;
use crate::pb;
use crate::refusal::{Refusal, leader_of};
use crate::types::*;

type Stub = pb::mds_client::MdsClient<Channel>;

/// Asks the leader of the metadata servers. Cheap to clone; clones share connections.
#[derive(Clone)]
pub struct MdsClient {
    inner: Arc<Inner>,
    deadline: Duration,
}

struct Inner {
    /// As configured.
    addresses: Vec<String>,
    state: Mutex<State>,
}

struct State {
    /// Who led last.
    leader: Option<String>,
    /// Where to go on when no leader is known.
    turn: usize,
    /// Connections made so far; leaders may have addresses that were not configured.
    channels: Vec<(String, Channel)>,
}

impl std::fmt::Debug for MdsClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MdsClient").field("addresses", &self.inner.addresses).finish()
    }
}

/// What to do after a failed attempt.
enum Next {
    Give(ApiError),
    Ask(String),
    Skip,
}

impl MdsClient {
    /// A client of the group whose members listen at `addresses` (`HOST:PORT`); connects at the
    /// first call.
    ///
    /// # Errors
    /// [`ApiError::Address`] when there is no address, or one makes no sense.
    pub fn new<S: AsRef<str>>(addresses: &[S]) -> Result<MdsClient, ApiError> {
        let addresses: Vec<String> = addresses
            .iter()
            .map(|a| a.as_ref().trim().to_owned())
            .filter(|a| !a.is_empty())
            .collect();
        if addresses.is_empty() || addresses.len() > ADDRESSES_MAX {
            return Err(ApiError::Address(addresses.join(",")));
        }
        for address in &addresses {
            endpoint(address)?;
        }
        let state = Mutex::new(State { leader: None, turn: 0, channels: Vec::new() });
        Ok(MdsClient { inner: Arc::new(Inner { addresses, state }), deadline: CALL_DEADLINE })
    }

    /// The same client with another deadline for each call.
    pub fn with_deadline(&self, deadline: Duration) -> MdsClient {
        MdsClient { inner: self.inner.clone(), deadline }
    }

    /// The addresses that it was given.
    pub fn addresses(&self) -> &[String] {
        &self.inner.addresses
    }

    /// Address of the server that led last, once one was found.
    pub fn leader(&self) -> Option<String> {
        self.inner.lock().leader.clone()
    }

    /// Announces a device; see [`Registration`].
    pub async fn register_chunkserver(&self, r: Registration) -> Result<Registered, ApiError> {
        let request: pb::RegisterChunkserverRequest = r.into();
        let call = async |mut s: Stub, q| s.register_chunkserver(q).await;
        self.call(request, call).await?.try_into()
    }

    /// Sends a sign of life and learns what to hold and do.
    pub async fn heartbeat(&self, h: Heartbeat) -> Result<HeartbeatReply, ApiError> {
        let request: pb::HeartbeatRequest = h.into();
        self.call(request, async |mut s: Stub, q| s.heartbeat(q).await).await?.try_into()
    }

    /// Creates a volume.
    pub async fn create_volume(&self, v: NewVolume) -> Result<Volume, ApiError> {
        let layout = pb::VolumeLayout {
            stripe_unit_bytes: v.layout.stripe_unit_bytes(),
            stripe_chunks: v.layout.stripe_chunks(),
            copysets_per_segment: v.copysets_per_segment.unwrap_or(0),
        };
        let request = pb::CreateVolumeRequest {
            name: v.name,
            size_bytes: v.size_bytes,
            layout: Some(layout),
            request_id: Uuid::new_v4().to_string(),
        };
        self.call(request, async |mut s: Stub, q| s.create_volume(q).await).await?.try_into()
    }

    /// All volumes whose names start with `prefix`, in order of their names.
    pub async fn list_volumes(&self, prefix: &str) -> Result<Vec<Volume>, ApiError> {
        let mut all: Vec<Volume> = Vec::new();
        loop {
            let after = all.last().map(|v| v.name.clone()).unwrap_or_default();
            let page = self.list_volumes_page(prefix, &after, 0).await?;
            let done = !page.more || page.volumes.is_empty();
            all.extend(page.volumes);
            if done {
                return Ok(all);
            }
        }
    }

    /// Some of the volumes whose names start with `prefix`, those after `after`; `limit` 0 for the
    /// server's own.
    pub async fn list_volumes_page(
        &self,
        prefix: &str,
        after: &str,
        limit: u32,
    ) -> Result<VolumePage, ApiError> {
        let request = pb::ListVolumesRequest { prefix: prefix.into(), after: after.into(), limit };
        let reply = self.call(request, async |mut s: Stub, q| s.list_volumes(q).await).await?;
        let volumes: Result<_, _> = reply.volumes.into_iter().map(Volume::try_from).collect();
        Ok(VolumePage { volumes: volumes?, more: reply.more })
    }

    /// The volume with that name.
    pub async fn get_volume(&self, name: &str) -> Result<Volume, ApiError> {
        let request = pb::GetVolumeRequest { name: name.into() };
        self.call(request, async |mut s: Stub, q| s.get_volume(q).await).await?.try_into()
    }

    /// Deletes a volume; `force` even while it is attached.
    pub async fn delete_volume(&self, name: &str, force: bool) -> Result<(), ApiError> {
        let request = pb::DeleteVolumeRequest { name: name.into(), force };
        let mut unsure = false;
        let call = async |mut s: Stub, q| s.delete_volume(q).await;
        match self.call_noting(request, &mut unsure, call).await {
            // An earlier attempt whose answer was lost has deleted it.
            Err(e) if unsure && e.refusal() == Some(Refusal::VolumeNotFound) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Makes a volume larger.
    pub async fn resize_volume(&self, name: &str, size_bytes: u64) -> Result<Volume, ApiError> {
        let request = pb::ResizeVolumeRequest { name: name.into(), size_bytes };
        self.call(request, async |mut s: Stub, q| s.resize_volume(q).await).await?.try_into()
    }

    /// Takes a volume for exclusive use; `client` is what people see as its holder; `force` ends
    /// another session.
    pub async fn attach_volume(
        &self,
        name: &str,
        client: &str,
        force: bool,
    ) -> Result<Attachment, ApiError> {
        let request = pb::AttachVolumeRequest {
            name: name.into(),
            client: client.into(),
            force,
            request_id: Uuid::new_v4().to_string(),
        };
        self.call(request, async |mut s: Stub, q| s.attach_volume(q).await).await?.try_into()
    }

    /// Keeps a session alive; do so every third of the lease.
    pub async fn keep_alive(&self, k: KeepAlive) -> Result<KeptAlive, ApiError> {
        let request: pb::KeepAliveRequest = k.into();
        self.call(request, async |mut s: Stub, q| s.keep_alive(q).await).await?.try_into()
    }

    /// Ends a session; one that has ended already is no error.
    pub async fn detach_volume(&self, v: VolumeId, session: SessionId) -> Result<(), ApiError> {
        let request = pb::DetachVolumeRequest { volume: v.0, session: session.0 };
        self.call(request, async |mut s: Stub, q| s.detach_volume(q).await).await.map(|_| ())
    }

    /// The copysets of segments `from ..`; `count` 0 for as many as the server gives. With the
    /// epoch of an attachment, refused when there is a newer one.
    pub async fn get_segments(
        &self,
        volume: VolumeId,
        from: u32,
        count: u32,
        epoch: Option<Epoch>,
    ) -> Result<Segments, ApiError> {
        let epoch = epoch.map_or(0, |e| e.0);
        let request = pb::GetSegmentsRequest { volume: volume.0, from, count, epoch };
        let r = self.call(request, async |mut s: Stub, q| s.get_segments(q).await).await?;
        let segments: Result<_, _> = r.segments.into_iter().map(convert::segment).collect();
        Ok(Segments { segments: segments?, looked_at: r.looked_at })
    }

    /// Gives space to a segment, or says which copysets it already has.
    pub async fn allocate_segment(
        &self,
        volume: VolumeId,
        number: u32,
        session: SessionId,
        epoch: Epoch,
    ) -> Result<Vec<CopysetId>, ApiError> {
        let (volume, session, epoch) = (volume.0, session.0, epoch.0);
        let request = pb::AllocateSegmentRequest { volume, number, session, epoch };
        let r = self.call(request, async |mut s: Stub, q| s.allocate_segment(q).await).await?;
        Ok(convert::segment(r)?.1)
    }

    /// The topology, or `None` when it still is of `known_version` (0 for none).
    pub async fn get_topology(&self, known_version: u64) -> Result<Option<Topology>, ApiError> {
        let request = pb::GetTopologyRequest { known_version };
        let r = self.call(request, async |mut s: Stub, q| s.get_topology(q).await).await?;
        r.topology.map(Topology::try_from).transpose()
    }

    /// Everything about the cluster's state.
    pub async fn status(&self) -> Result<ClusterStatus, ApiError> {
        let call = async |mut s: Stub, q| s.status(q).await;
        self.call(pb::StatusRequest {}, call).await?.try_into()
    }

    async fn call<Q: Clone, A, F: Future<Output = Result<Response<A>, Status>>>(
        &self,
        request: Q,
        call: impl Fn(Stub, Request<Q>) -> F,
    ) -> Result<A, ApiError> {
        self.call_noting(request, &mut false, call).await
    }

    /// Makes a call; sets `unsure` when an attempt failed in a way that leaves open whether it took
    /// effect.
    async fn call_noting<Q: Clone, A, F: Future<Output = Result<Response<A>, Status>>>(
        &self,
        request: Q,
        unsure: &mut bool,
        call: impl Fn(Stub, Request<Q>) -> F,
    ) -> Result<A, ApiError> {
        let start = Instant::now();
        let until = start + self.deadline;
        let mut pause = BACKOFF.0;
        let (mut failed, mut redirects) = (0, 0);
        let mut last = String::from("nothing was tried");
        while Instant::now() < until {
            let address = self.inner.candidate();
            let left = until.saturating_duration_since(Instant::now());
            let limit = left.min(ATTEMPT_TIMEOUT);
            let stub = self.inner.stub(&address)?;
            let mut attempt = Request::new(request.clone());
            attempt.set_timeout(limit);
            let answer = tokio::time::timeout(limit, call(stub, attempt)).await;
            let status = match answer {
                Ok(Ok(reply)) => {
                    self.inner.led(&address);
                    return Ok(reply.into_inner());
                }
                Ok(Err(status)) => status,
                Err(_) => {
                    Status::deadline_exceeded(format!("no answer in {} ms", limit.as_millis()))
                }
            };
            last = format!("{address}: {}", status.message());
            match judge(&address, status) {
                Next::Give(error) => return Err(error),
                Next::Ask(leader) if redirects < REDIRECTS_MAX => {
                    redirects += 1;
                    self.inner.led(&leader);
                    continue;
                }
                Next::Ask(_) => self.inner.skip(&address),
                Next::Skip => {
                    // The answer is lost, the change may be made.
                    *unsure = true;
                    self.inner.skip(&address);
                }
            }
            failed += 1;
            if failed % self.inner.addresses.len() == 0 {
                redirects = 0;
                tokio::time::sleep_until(until.min(Instant::now() + pause)).await;
                pause = (pause * 2).min(BACKOFF.1);
            }
        }
        let waited_ms = start.elapsed().as_millis() as u64;
        Err(ApiError::NoLeader { addresses: self.inner.addresses.join(", "), waited_ms, last })
    }
}

/// What a failed attempt means:
///
/// | status | next |
/// |---|---|
/// | with a refusal | give it to the caller |
/// | with a leader's address | ask there |
/// | unavailable, deadline exceeded, cancelled, aborted, or a broken connection | the next server |
/// | anything else | give it to the caller |
fn judge(address: &str, status: Status) -> Next {
    if let Some(refusal) = Refusal::of(&status) {
        return Next::Give(ApiError::Refused { refusal, message: status.message().to_owned() });
    }
    if let Some(leader) = leader_of(&status) {
        return if leader == address { Next::Skip } else { Next::Ask(leader) };
    }
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Aborted => Next::Skip,
        // What hyper makes of a connection that breaks in the middle of a call.
        Code::Unknown | Code::Internal if broke(&status) => Next::Skip,
        _ => Next::Give(ApiError::Server {
            address: address.to_owned(),
            message: format!("{}: {}", status.code(), status.message()),
        }),
    }
}

/// True for a status that was made here from a failed connection, and not sent by a server.
fn broke(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

fn endpoint(address: &str) -> Result<Endpoint, ApiError> {
    let bad = || ApiError::Address(address.to_owned());
    let (host, port) = address.rsplit_once(':').ok_or_else(bad)?;
    if host.is_empty() || port.parse::<u16>().is_err() {
        return Err(bad());
    }
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| bad())?;
    Ok(endpoint.connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true))
}

impl Inner {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        // A panic while holding the lock leaves nothing half done: each critical section is one
        // assignment.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn candidate(&self) -> String {
        let state = self.lock();
        let turn = || self.addresses[state.turn % self.addresses.len()].clone();
        state.leader.clone().unwrap_or_else(turn)
    }

    fn led(&self, address: &str) {
        let mut state = self.lock();
        if state.leader.as_deref() != Some(address) {
            state.leader = Some(address.to_owned());
        }
    }

    fn skip(&self, address: &str) {
        let mut state = self.lock();
        if state.leader.as_deref() == Some(address) {
            state.leader = None;
        }
        if self.addresses[state.turn % self.addresses.len()] == address {
            state.turn = (state.turn + 1) % self.addresses.len();
        }
    }

    fn stub(&self, address: &str) -> Result<Stub, ApiError> {
        let mut state = self.lock();
        if let Some((_, channel)) = state.channels.iter().find(|(a, _)| a == address) {
            return Ok(stub(channel.clone()));
        }
        let channel = endpoint(address)?.connect_lazy();
        if state.channels.len() >= ADDRESSES_MAX {
            state.channels.remove(0);
        }
        state.channels.push((address.to_owned(), channel.clone()));
        Ok(stub(channel))
    }
}

fn stub(channel: Channel) -> Stub {
    Stub::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::not_leader;

    #[test]
    fn addresses_are_checked() {
        let good: [&[&str]; 3] = [&["127.0.0.1:7000"], &["a:1", "b:2"], &["[::1]:7000"]];
        for list in good {
            assert!(MdsClient::new(list).is_ok(), "{list:?}");
        }
        let bad: [&[&str]; 6] = [&[], &[""], &["host"], &["host:x"], &[":1"], &["a b:1"]];
        for list in bad {
            assert!(matches!(MdsClient::new(list), Err(ApiError::Address(_))), "{list:?}");
        }
    }

    #[test]
    fn failures_are_judged_by_the_table() {
        let refused = judge("a:1", Refusal::VolumeExists.status("taken"));
        assert!(matches!(refused, Next::Give(ApiError::Refused { .. })));
        assert!(matches!(judge("a:1", not_leader(Some("b:2"))), Next::Ask(l) if l == "b:2"));
        assert!(matches!(judge("a:1", not_leader(Some("a:1"))), Next::Skip));
        assert!(matches!(judge("a:1", not_leader(None)), Next::Skip));
        assert!(matches!(judge("a:1", Status::deadline_exceeded("slow")), Next::Skip));
        assert!(matches!(
            judge("a:1", Status::internal("bug")),
            Next::Give(ApiError::Server { .. })
        ));
    }

    #[test]
    fn servers_take_turns_when_no_leader_is_known() {
        let client = MdsClient::new(&["a:1", "b:2", "c:3"]).unwrap();
        let mut asked = Vec::new();
        for _ in 0..4 {
            let next = client.inner.candidate();
            client.inner.skip(&next);
            asked.push(next);
        }
        assert_eq!(asked, ["a:1", "b:2", "c:3", "a:1"]);
        client.inner.led("b:2");
        assert_eq!(client.inner.candidate(), "b:2");
        client.inner.skip("b:2");
        assert_eq!(client.inner.candidate(), "c:3", "a leader that fails is not asked twice");
    }

    #[tokio::test]
    async fn nobody_there_is_said_clearly() {
        let client = MdsClient::new(&["127.0.0.1:1"]).unwrap();
        let error = client.with_deadline(Duration::from_millis(200)).status().await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("is a majority of the MDS running?"), "{text}");
        assert!(text.contains("127.0.0.1:1"), "{text}");
    }
}
