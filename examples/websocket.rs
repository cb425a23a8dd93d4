//! A WebSocket that gives back what it is sent, and says goodbye when its worker is to leave: at a reload, say. The client
//! then comes again, to a worker that stays.

use axum::Router;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::routing::any;
use ferricorn::Worker;
use std::process::ExitCode;

/// Messages are held in memory whole.
const LARGEST_MESSAGE: usize = 64 * 1024;

fn main() -> ExitCode {
    ferricorn::run(|worker| {
        let upgrade = async move |upgrade: WebSocketUpgrade| {
            upgrade.max_message_size(LARGEST_MESSAGE).on_upgrade(|socket| talk(socket, worker))
        };
        Router::new().route("/talk", any(upgrade))
    })
}

async fn talk(mut socket: WebSocket, worker: Worker) {
    loop {
        let message = tokio::select! {
            message = socket.recv() => message,
            () = worker.draining() => break,
        };
        let sent = match message {
            Some(Ok(message @ (Message::Text(_) | Message::Binary(_)))) => socket.send(message).await,
            // The library answers pings and the client's close.
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_))) => Ok(()),
            Some(Err(_)) | None => return,
        };
        if sent.is_err() {
            return;
        }
    }
    let goodbye = CloseFrame { code: close_code::AWAY, reason: "this worker leaves".into() };
    let _ = socket.send(Message::Close(Some(goodbye))).await;
}
