//! Opening a session, and what a client has in one: the root, its own node, and two watches.

use std::sync::Arc;

use lock_core::{BootInstant, Context, Error, ErrorKind, Result};
use uuid::Uuid;
use zookeeper_client as zk;

use crate::config::{NodeAcl, ZkConfig};
use crate::error::{Failure, of_connecting};
use crate::node::{BASE, CLIENTS, LOCKS};
use crate::session::Session;

/// How often a step is tried again that another client has got in the way of.
const TRIES: usize = 16;

/// Opens a session and everything that a client has in one: the root of all nodes, its own node, and
/// the watches on that and on the fence base.
pub(crate) async fn open(
    config: &ZkConfig,
    context: &Context,
    until: BootInstant,
) -> Result<Arc<Session>> {
    let opened = context.clock.now();
    let opening = async {
        let client = connector(config)?
            .connect(&servers(config))
            .await
            .map_err(of_connecting)?;
        let tick = config.tick_of(client.session_timeout())?;
        make_root(&client, config).await.map_err(of_connecting)?;
        let client = client.chroot(config.chroot.as_str()).map_err(|_| {
            Error::new(ErrorKind::Invalid, "connect")
                .with_detail("the path is no path of ZooKeeper")
        })?;
        let session = Arc::new(Session::new(
            client,
            Uuid::new_v4(),
            opened,
            tick,
            context.clock.clone(),
        ));
        let ready = async {
            raise_base(&session, config, context.fence_base, until).await?;
            settle(&session, config, &context.identity.to_string(), until).await
        };
        match ready.await {
            Ok(()) => Ok(session),
            Err(failure) => {
                session.end();
                Err(match failure {
                    Failure::Refused(error) => of_connecting(error),
                    Failure::Unsent | Failure::Unknown(None) => silence(config),
                    Failure::Unknown(Some(source)) => silence(config).with_source(source),
                })
            }
        }
    };
    match context.clock.timeout_at(until, opening).await {
        Some(opened) => opened,
        None => Err(silence(config)),
    }
}

fn silence(config: &ZkConfig) -> Error {
    let servers = addresses(config).collect::<Vec<_>>().join(", ");
    Error::new(ErrorKind::Unavailable, "connect")
        .with_detail(format!("no ZooKeeper has answered in time at {servers}"))
}

fn connector(config: &ZkConfig) -> Result<zk::Connector> {
    // As long as a client library allows, so that a short stall does not cost the connection.
    let mut connector = zk::Client::connector()
        .with_session_timeout(config.session_timeout)
        .with_connection_timeout(config.session_timeout * 3 / 5);
    if let Some((user, password)) = &config.credentials {
        connector = connector.with_auth("digest", format!("{user}:{password}").as_bytes());
    }
    #[cfg(feature = "tls")]
    if let Some(tls) = &config.tls {
        connector = connector.with_tls(crate::tls::options(tls)?);
    }
    Ok(connector)
}

fn servers(config: &ZkConfig) -> String {
    let scheme = match config.tls {
        Some(_) => "tcp+tls://",
        None => "tcp://",
    };
    let servers = addresses(config).map(|address| format!("{scheme}{address}"));
    servers.collect::<Vec<_>>().join(",")
}

fn addresses(config: &ZkConfig) -> impl Iterator<Item = String> {
    config
        .servers
        .iter()
        .map(|(host, port)| match host.contains(':') {
            true => format!("[{host}]:{port}"),
            false => format!("{host}:{port}"),
        })
}

fn acls(config: &ZkConfig) -> zk::Acls<'static> {
    match config.node_acl() {
        NodeAcl::Creator => zk::Acls::creator_all(),
        NodeAcl::Open => zk::Acls::anyone_all(),
    }
}

/// Makes the root of all nodes, unless it is there: whoever may only use it need not be able to.
async fn make_root(client: &zk::Client, config: &ZkConfig) -> Result<(), zk::Error> {
    if client.check_stat(&config.chroot).await?.is_none() {
        let options = zk::CreateMode::Persistent.with_acls(acls(config));
        client.mkdir(&config.chroot, &options).await?;
    }
    Ok(())
}

/// Makes sure that tokens are larger than `base` from now on, whoever hands them out.
async fn raise_base(
    session: &Session,
    config: &ZkConfig,
    base: u64,
    until: BootInstant,
) -> Result<(), Failure> {
    if base == 0 {
        return Ok(());
    }
    let handle = session.handle(until).await?;
    let data = base.to_string();
    for _ in 0..TRIES {
        let written = match session.answer(until, handle.get_data(BASE)).await {
            Ok((now, _)) if read_base(&now)? >= base => return Ok(()),
            Ok((_, stat)) => {
                let write = handle.set_data(BASE, data.as_bytes(), Some(stat.version));
                session.answer(until, write).await.map(drop)
            }
            Err(Failure::Refused(zk::Error::NoNode)) => {
                let options = zk::CreateMode::Persistent.with_acls(acls(config));
                let write = handle.create(BASE, data.as_bytes(), &options);
                session.answer(until, write).await.map(drop)
            }
            Err(failure) => return Err(failure),
        };
        match written {
            Ok(()) => return Ok(()),
            // Another client has raised it meanwhile.
            Err(Failure::Refused(zk::Error::BadVersion | zk::Error::NodeExists)) => {}
            // Somebody has removed it meanwhile, or the root.
            Err(Failure::Refused(zk::Error::NoNode)) => {
                let whole = handle.clone().chroot("/").unwrap_or_else(|same| same);
                session.answer(until, make_root(&whole, config)).await?;
            }
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::Unknown(None))
}

fn read_base(data: &[u8]) -> Result<u64, Failure> {
    let base = std::str::from_utf8(data)
        .ok()
        .and_then(|text| text.parse().ok());
    base.ok_or_else(|| {
        Failure::Refused(zk::Error::BadArguments(
            &"the fence base of this root is no number",
        ))
    })
}

/// Sees to it that the client's own node is there, that the fence base is known, and that a change of
/// either is noticed.
pub(crate) async fn settle(
    session: &Session,
    config: &ZkConfig,
    identity: &str,
    until: BootInstant,
) -> Result<(), Failure> {
    let handle = session.handle(until).await?;
    let base = async {
        match session.base_node.is_quiet() {
            true => Ok(()),
            false => settle_base(session, &handle, config, until).await,
        }
    };
    let own = async {
        match session.own_node.is_quiet() {
            true => Ok(()),
            false => settle_own(session, &handle, config, identity, until).await,
        }
    };
    futures_util::try_join!(base, own)?;
    session.settled.send_modify(|times| *times += 1);
    Ok(())
}

async fn settle_base(
    session: &Session,
    handle: &zk::Client,
    config: &ZkConfig,
    until: BootInstant,
) -> Result<(), Failure> {
    for _ in 0..TRIES {
        match session.answer(until, handle.get_and_watch_data(BASE)).await {
            Ok((data, _, watcher)) => {
                session.set_base(read_base(&data)?);
                session.base_node.set(watcher);
                return Ok(());
            }
            // Somebody has removed it: whoever comes later must not hand out smaller tokens than we have.
            Err(Failure::Refused(zk::Error::NoNode)) if session.base() > 0 => {
                match raise_base(session, config, session.base(), until).await {
                    Ok(()) => continue,
                    // Who may not make it goes on without.
                    Err(Failure::Refused(zk::Error::NoAuth)) => {}
                    Err(failure) => return Err(failure),
                }
            }
            Err(Failure::Refused(zk::Error::NoNode)) => {}
            Err(failure) => return Err(failure),
        }
        // One watch for each client, for as long as it lives: it is meant to be left behind.
        let absent = session
            .answer(until, handle.check_and_watch_stat(BASE))
            .await?;
        if let (None, watcher) = absent {
            session.base_node.set(watcher);
            return Ok(());
        }
    }
    Err(Failure::Unknown(None))
}

async fn settle_own(
    session: &Session,
    handle: &zk::Client,
    config: &ZkConfig,
    identity: &str,
    until: BootInstant,
) -> Result<(), Failure> {
    let path = own_path(session.name());
    let ephemeral = zk::CreateMode::Ephemeral.with_acls(acls(config));
    for _ in 0..TRIES {
        // In one round trip; mostly it is there only when the alarm rang.
        let create = handle.create(&path, identity.as_bytes(), &ephemeral);
        let watch = handle.get_and_watch_data(&path);
        let (created, watched) =
            futures_util::join!(session.answer(until, create), session.answer(until, watch));
        if let Ok((_, _, watcher)) = watched {
            session.own_node.set(watcher);
            return Ok(());
        }
        match created {
            Ok(_) | Err(Failure::Refused(zk::Error::NodeExists)) => {}
            Err(Failure::Refused(zk::Error::NoNode)) => {
                // Nobody has been here before: what the first lock needs is made as well.
                make_container(session, handle, config, CLIENTS, until).await?;
                make_container(session, handle, config, LOCKS, until).await?;
            }
            Err(failure) => return Err(failure),
        }
        match watched {
            Ok(_) | Err(Failure::Refused(zk::Error::NoNode)) => {}
            Err(failure) => return Err(failure),
        }
    }
    Err(Failure::Unknown(None))
}

/// Makes a container right below the root, and the root if somebody has removed it.
pub(crate) async fn make_container(
    session: &Session,
    handle: &zk::Client,
    config: &ZkConfig,
    path: &str,
    until: BootInstant,
) -> Result<(), Failure> {
    let options = zk::CreateMode::Container.with_acls(acls(config));
    for _ in 0..TRIES {
        match session
            .answer(until, handle.create(path, &[], &options))
            .await
        {
            Ok(_) | Err(Failure::Refused(zk::Error::NodeExists)) => return Ok(()),
            Err(Failure::Refused(zk::Error::NoNode)) => {}
            Err(failure) => return Err(failure),
        }
        let whole = handle.clone().chroot("/").unwrap_or_else(|same| same);
        session.answer(until, make_root(&whole, config)).await?;
    }
    Err(Failure::Unknown(None))
}

/// The node of the client whose session has this name.
pub(crate) fn own_path(name: Uuid) -> String {
    format!("{CLIENTS}/{}", name.as_simple())
}
