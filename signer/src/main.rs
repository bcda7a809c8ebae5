//! The signer as a process of its own, beside the packager: the stream keeps flowing, verified,
//! whatever happens to the orchestrator.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Parser;
use espalier_process::{Failure, LogArgs, OrFail as _, announce, run, shutdown};
use espalier_signer::store::{self, StoreError};
use espalier_signer::{
    ServiceLimits, Signer, SignerConfig, SignerHandle, SignerState, StartError, StatementService,
};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;

/// Watches a live HLS origin, signs every object of it and serves the signed statements.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Args {
    /// The origin's HLS master or media playlist (HTTP or HTTPS)
    #[arg(long, value_name = "URL")]
    origin: String,

    /// The Ed25519 private key, PKCS#8 PEM, mode 0600; made if there is no such file. What a restart
    /// needs is kept beside it, in FILE.state
    #[arg(long, value_name = "FILE")]
    key: PathBuf,

    /// Where to serve the statements (gRPC)
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7400")]
    listen: SocketAddr,

    #[command(flatten)]
    log: LogArgs,
}

const EXAMPLES: &str = "\
Examples:
  espalier-signer --origin http://packager.example/live/master.m3u8 --key signer.pem --listen 0.0.0.0:7400
  espalier channel create news --origin http://cdn.example/live/master.m3u8 --signer http://packager.example:7400

When ready it prints ESPALIER_SIGNER=http://ADDR on a line of its own on stdout.
Exit codes: 0 stopped by SIGINT or SIGTERM, 1 failed, 64 wrong arguments.";

fn main() -> std::process::ExitCode {
    run(|args: &Args| &args.log, |args| Box::pin(sign(args)))
}

async fn sign(args: Args) -> Result<(), Failure> {
    let stop = shutdown();
    let state_path = store::state_path(&args.key);
    let (key, state) = load(&args.key, &state_path)?;
    let listener = TcpListener::bind(args.listen)
        .await
        .or_fail(format!("cannot listen on {}", args.listen))?;
    let address = listener
        .local_addr()
        .or_fail("cannot find out the address listened on")?;
    let config = SignerConfig {
        origin_uri: args.origin,
        key,
        state,
    };
    let signer = Signer::start(config).map_err(|error| match &error {
        StartError::Origin(_) => Failure::usage("--origin cannot be used").caused_by(&error),
        StartError::Http(_) => Failure::failed("the signer did not start").caused_by(&error),
    })?;
    let keeper = tokio::spawn(keep_state(signer.watch_state(), state_path));
    announce("ESPALIER_SIGNER", format_args!("http://{address}"));
    let served = serve(listener, &signer, stop).await;
    signer.shutdown().await;
    // The signer has stopped, so its last state has been told and the keeper ends.
    keeper.await.or_fail("the state was not kept")?;
    served
}

/// Serves until asked to stop.
async fn serve(
    listener: TcpListener,
    signer: &SignerHandle,
    stop: impl Future<Output = espalier_process::ShutdownSignal>,
) -> Result<(), Failure> {
    let service = StatementService::new(signer.clone(), ServiceLimits::default()).into_server();
    let (health, health_service) = tonic_health::server::health_reporter();
    health
        .set_service_status("", tonic_health::ServingStatus::Serving)
        .await;
    health
        .set_service_status(
            "espalier.v1.SignerService",
            tonic_health::ServingStatus::Serving,
        )
        .await;
    let stopping = async {
        let signal = stop.await;
        tracing::info!(?signal, "stopping");
        // Open feeds would keep the server up.
        signer.shutdown().await;
    };
    Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .http2_keepalive_timeout(Some(Duration::from_secs(10)))
        .add_service(health_service)
        .add_service(service)
        .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stopping)
        .await
        .or_fail("the server failed")
}

fn load(
    key_path: &Path,
    state_path: &Path,
) -> Result<(espalier_media::StatementKey, SignerState), Failure> {
    let loaded = store::load_or_create_key(key_path).map_err(|error| explain(&error, key_path))?;
    let id = loaded.key.public_key().id();
    if loaded.created {
        tracing::info!(key = %id, file = %key_path.display(), "made a new key");
    } else {
        tracing::info!(key = %id, file = %key_path.display(), "loaded the key");
    }
    let state = store::load_state(state_path).map_err(|error| explain(&error, key_path))?;
    Ok((loaded.key, state))
}

fn explain(error: &StoreError, key: &Path) -> Failure {
    let failure = Failure::failed("the key or the state cannot be loaded").caused_by(error);
    match error {
        StoreError::Mode { .. } => failure.next(format!("chmod 600 {}", key.display())),
        StoreError::Key { .. } => {
            failure.next("name another file with --key; one that does not exist is made")
        }
        StoreError::State { .. } => failure.next(
            "restore it from a backup; without it peers may see one number mean two segments, so \
             remove it only together with the key",
        ),
        StoreError::Read { .. } | StoreError::Write { .. } => failure,
    }
}

/// Stores each state; it ends with the signer.
async fn keep_state(mut states: watch::Receiver<SignerState>, path: PathBuf) {
    while states.changed().await.is_ok() {
        let state = states.borrow_and_update().clone();
        let path = path.clone();
        let stored = tokio::task::spawn_blocking(move || store::store_state(&path, &state)).await;
        match stored {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::error!(%error, source = ?std::error::Error::source(&error), "state not kept");
            }
            Err(error) => tracing::error!(%error, "state not kept"),
        }
    }
}
