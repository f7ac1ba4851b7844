//! Servers in turn.
/// Options.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// In three minutes
    #[arg(long)]
    pub quick: bool,
}
/// Runs it.
pub fn run(_: &Args) -> Result<(), String> {
    Ok(())
}
