//! stub
use crate::args::DemoArgs;
use espalier_process::Failure;
pub(crate) async fn run(_args: DemoArgs) -> Result<(), Failure> {
    let _ = crate::origin::Content::Directory("x".into());
    Ok(())
}
