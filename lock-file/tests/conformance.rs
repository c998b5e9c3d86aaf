//! The conformance suite on directories. Each case has one of its own.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use lock_conformance::{Arena, Case, Fault, Faults, Harness, Missing, Pace, async_trait};
use lock_core::Connect;
use lock_file::FileConfig;

struct FileHarness;

impl Harness for FileHarness {
    fn name(&self) -> &str {
        "file"
    }

    fn pace(&self) -> Pace {
        Pace::new(Duration::from_millis(500))
    }

    fn arena(&self, case: &Case) -> Result<Arena, Missing> {
        let dir = tempfile::Builder::new()
            .prefix(&format!("distlock-{}-", case.id))
            .tempdir()?;
        let config = FileConfig::new(dir.path());
        let spec = dir.path().to_string_lossy().into_owned();
        let faults = FileFaults {
            dir: dir.path().into(),
        };
        Ok(
            Arena::new(move || -> Box<dyn Connect> { Box::new(config.clone()) })
                .with_spec(spec)
                .with_faults(Arc::new(faults))
                .keeping(dir),
        )
    }

    fn supports(&self, fault: Fault) -> bool {
        fault == Fault::Obstruct
    }

    fn crosses_processes(&self) -> bool {
        true
    }

    fn connector(&self, spec: &str) -> Option<Box<dyn Connect>> {
        Some(Box::new(FileConfig::new(spec)))
    }
}

struct FileFaults {
    dir: Box<Path>,
}

#[async_trait]
impl Faults for FileFaults {
    async fn obstruct(&self, name: &str) -> io::Result<()> {
        // Which file a lock has is the backend's own affair: all there are become something else.
        let config = FileConfig::new(&*self.dir);
        let locks = lock_core::Locks::open(config, lock_core::ClientOptions::default())
            .await
            .map_err(io::Error::other)?;
        let guard = locks
            .mutex(name)
            .acquire()
            .await
            .map_err(io::Error::other)?;
        guard.release().await.map_err(io::Error::other)?;
        for entry in std::fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path
                .extension()
                .is_some_and(|extension| extension == "lock")
            {
                std::fs::write(path, "not a lock")?;
            }
        }
        Ok(())
    }
}

lock_conformance::main!(FileHarness);
