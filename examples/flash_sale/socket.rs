//! The warehouse over a Unix socket: `stock` is answered by a number, `sell LEFT TOKEN` (`-` for no
//! token) by `sold` or `stale WHY`. One line each, answered in order.

use std::path::Path;
use std::sync::Arc;

use distlock::{FencingToken, async_trait};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use crate::failure::Failure;
use crate::warehouse::{Receipt, Shelf, Warehouse};

/// Serves `shelf` to whoever connects, until the future is dropped.
pub(crate) async fn serve(listener: UnixListener, shelf: Arc<Shelf>) {
    while let Ok((stream, _)) = listener.accept().await {
        // Ends when its client has gone.
        tokio::spawn(serve_one(stream, Arc::clone(&shelf)));
    }
}

async fn serve_one(stream: UnixStream, shelf: Arc<Shelf>) -> Result<(), Failure> {
    let (read, mut write) = stream.into_split();
    let mut requests = BufReader::new(read).lines();
    while let Some(request) = requests.next_line().await? {
        let answer = answer(&request, &shelf).await?;
        write.write_all(format!("{answer}\n").as_bytes()).await?;
    }
    Ok(())
}

async fn answer(request: &str, shelf: &Shelf) -> Result<String, Failure> {
    let words: Vec<_> = request.split(' ').collect();
    match words[..] {
        ["stock"] => Ok(shelf.stock().await?.to_string()),
        ["sell", left, token] => {
            let token = match token {
                "-" => None,
                token => Some(FencingToken::new(number(token)?)?),
            };
            match shelf.sell(number(left)?, token).await? {
                Receipt::Sold => Ok("sold".to_owned()),
                Receipt::Stale(why) => Ok(format!("stale {why}")),
            }
        }
        _ => Err(misunderstood(request)),
    }
}

/// The warehouse, seen from another process. Clients of one process share a connection.
#[derive(Debug)]
pub(crate) struct RemoteWarehouse {
    requests: mpsc::UnboundedSender<(String, oneshot::Sender<String>)>,
}

impl RemoteWarehouse {
    pub(crate) async fn connect(path: &Path) -> Result<Self, Failure> {
        let stream = UnixStream::connect(path).await?;
        let (requests, asked) = mpsc::unbounded_channel();
        // The connection has a task of its own: a buyer who leaves between request and answer must
        // not leave the answer for the next one.
        tokio::spawn(relay(stream, asked));
        Ok(Self { requests })
    }

    async fn ask(&self, request: String) -> Result<String, Failure> {
        let gone = || Failure::new("the warehouse is gone");
        let (reply, answer) = oneshot::channel();
        self.requests.send((request, reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

async fn relay(
    stream: UnixStream,
    mut asked: mpsc::UnboundedReceiver<(String, oneshot::Sender<String>)>,
) -> Result<(), Failure> {
    let (read, mut write) = stream.into_split();
    let mut answers = BufReader::new(read).lines();
    while let Some((request, reply)) = asked.recv().await {
        write.write_all(format!("{request}\n").as_bytes()).await?;
        let Some(answer) = answers.next_line().await? else {
            break;
        };
        // A buyer who has left does not mind.
        let _ = reply.send(answer);
    }
    Ok(())
}

#[async_trait]
impl Warehouse for RemoteWarehouse {
    async fn stock(&self) -> Result<u32, Failure> {
        number(&self.ask("stock".to_owned()).await?)
    }

    async fn sell(&self, left: u32, token: Option<FencingToken>) -> Result<Receipt, Failure> {
        let token = token.map_or_else(|| "-".to_owned(), |token| token.to_string());
        let answer = self.ask(format!("sell {left} {token}")).await?;
        match answer.split_once(' ') {
            None if answer == "sold" => Ok(Receipt::Sold),
            Some(("stale", why)) => Ok(Receipt::Stale(why.to_owned())),
            _ => Err(misunderstood(&answer)),
        }
    }
}

fn number<N: std::str::FromStr>(text: &str) -> Result<N, Failure> {
    text.parse().map_err(|_| misunderstood(text))
}

fn misunderstood(line: &str) -> Failure {
    Failure::new(format!(
        "the warehouse and its client misunderstood: {line:?}"
    ))
}
