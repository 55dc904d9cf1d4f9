//! The same over tonic: a unary call that echoes its bytes, each end a runtime of one thread.
//!
//! The message and the service are what `tonic-prost-build` would make of
//! `rpc Echo(Data) returns (Data)` with `message Data { bytes data = 1; }`, written by hand so that
//! a benchmark needs no code generation.

use std::convert::Infallible;

use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tonic::body::Body;
use tonic::client::Grpc as Client;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::{BoxFuture, Context, Poll, Service, http};
use tonic::server::{Grpc as Server, NamedService, UnaryService};
use tonic::transport::Channel;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use super::drive::End;
use super::spec::Case;

const PATH: &str = "/ogive.bench.Echo/Echo";

#[derive(Clone, PartialEq, prost::Message)]
struct Data {
    #[prost(bytes = "vec", tag = "1")]
    data: Vec<u8>,
}

type Codec = ProstCodec<Data, Data>;

/// The asking end.
pub(super) struct Unary {
    runtime: Runtime,
    client: Client<Channel>,
    request: Data,
    /// The one request in flight.
    flight: Option<u32>,
}

impl Unary {
    pub(super) fn connect(to: &str, case: Case) -> Result<Unary, String> {
        assert_eq!(case.depth, 1, "the reference is measured at depth 1 only");
        let runtime = runtime()?;
        let endpoint = Channel::from_shared(format!("http://{to}")).map_err(|e| e.to_string())?;
        let channel = runtime.block_on(endpoint.tcp_nodelay(true).connect());
        let channel = channel.map_err(|e| format!("{to}: {e}"))?;
        let request = Data { data: vec![7; case.bytes] };
        Ok(Unary { runtime, client: Client::new(channel), request, flight: None })
    }
}

impl End for Unary {
    fn start(&mut self, slot: u32) -> Result<(), String> {
        self.flight = Some(slot);
        Ok(())
    }

    fn turn(&mut self, done: &mut Vec<u32>) -> Result<(), String> {
        let Some(slot) = self.flight.take() else { return Ok(()) };
        let (client, request) = (&mut self.client, self.request.clone());
        let answer = self.runtime.block_on(async {
            client.ready().await.map_err(|e| e.to_string())?;
            let path = PathAndQuery::from_static(PATH);
            let call = client.unary(Request::new(request), path, Codec::default());
            call.await.map_err(|status| status.to_string())
        })?;
        if answer.get_ref().data.len() != self.request.data.len() {
            return Err("the answer is not what was asked for".into());
        }
        done.push(slot);
        Ok(())
    }
}

/// The answering process.
pub(super) fn serve(ready: impl Fn(String) -> Result<(), String>) -> Result<(), String> {
    runtime()?.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|e| e.to_string())?;
        ready(listener.local_addr().map_err(|e| e.to_string())?.to_string())?;
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let server = tonic::transport::Server::builder().add_service(Echo);
        server.serve_with_incoming(incoming).await.map_err(|e| e.to_string())
    })
}

fn runtime() -> Result<Runtime, String> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())
}

#[derive(Clone)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = "ogive.bench.Echo";
}

impl Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(async { Ok(Server::new(Codec::default()).unary(Echo, request).await) })
    }
}

impl UnaryService<Data> for Echo {
    type Response = Data;
    type Future = BoxFuture<Response<Data>, Status>;

    fn call(&mut self, request: Request<Data>) -> Self::Future {
        Box::pin(async { Ok(Response::new(request.into_inner())) })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::drive::{Plan, drive};
    use super::super::spec::Pattern;
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods)] // the server runs in a thread of its own
    fn calls_are_echoed() {
        let (sender, address) = std::sync::mpsc::channel();
        std::thread::spawn(move || serve(|at| sender.send(at).map_err(|e| e.to_string())));
        let case = Case { pattern: Pattern::Echo, bytes: 4096, depth: 1 };
        let mut end = Unary::connect(&address.recv().unwrap(), case).expect("a connection");
        let plan = Plan::new(1, 4096, Duration::from_millis(20));
        assert!(drive(&mut end, &plan, std::process::id()).is_ok_and(|s| s.messages > 0));
    }
}
