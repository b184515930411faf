//! `lapwing-conformance prepare`: a deployment for a server that is to be looked at.

use std::path::PathBuf;

use argh::FromArgs;

use crate::bench::deployment::{CAPACITY, Deployment};

/// Makes a deployment for a Detection server of your own in a folder: an authority, certificates, a
/// token and a configuration; prints the arguments that look at it.
#[derive(FromArgs)]
#[argh(subcommand, name = "prepare")]
pub(super) struct Prepare {
    /// the folder, which is made
    #[argh(option)]
    out: PathBuf,
    /// the command that runs a Detection server with a configuration file as its last argument
    /// (default `lapwing detection --config`)
    #[argh(option, default = "\"lapwing detection --config\".into()")]
    server: String,
}

impl Prepare {
    pub(super) fn run(self) -> Result<bool, String> {
        std::fs::create_dir_all(&self.out)
            .map_err(|error| format!("cannot make {}: {error}", self.out.display()))?;
        let made = Deployment::create(&self.out)?;
        let folder = made.folder.display();
        println!(
            "--addr {} --console {} --token {} --ca {folder}/ca.pem --identities {} \
             --capacity {CAPACITY} --server-cmd \"{} {}\" --narrow-cmd \"{} {}\" \
             --backed-cmd \"{} {}\"",
            made.sensors,
            made.console,
            made.token,
            made.lent().display(),
            self.server,
            made.config().display(),
            self.server,
            made.narrow().display(),
            self.server,
            made.backed().display(),
        );
        Ok(true)
    }
}
