//! actix-web as its users start it: one process, a thread that accepts and threads that serve. No log.

use actix_files::Files;
use actix_web::web::{Bytes, get, post};
use actix_web::{App, HttpResponse, HttpServer};
use peers::{Arguments, pages};

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let arguments = Arguments::read();
    let app = || {
        App::new()
            .route("/", get().to(async || HttpResponse::Ok().content_type(pages::TEXT).body(pages::HELLO)))
            .route("/json", get().to(async || HttpResponse::Ok().json(pages::items())))
            .route("/length", post().to(async |body: Bytes| body.len().to_string()))
            .route("/download", get().to(download))
            .service(Files::new("/files", "files"))
    };
    HttpServer::new(app).workers(arguments.workers).tcp_nodelay(true).bind(arguments.bind)?.run().await
}

async fn download() -> HttpResponse {
    HttpResponse::Ok().content_type(pages::BYTES).body(Bytes::from_static(&pages::DOWNLOAD))
}
