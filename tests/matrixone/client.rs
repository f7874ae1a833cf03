//! The client against the recorded server: logins, answers, errors, what must never be sent.

use std::time::Duration;

use everpack::error::ErrorKind;
use everpack::matrixone::client::{Client, ServerError};
use everpack::matrixone::login::Login;
use everpack::matrixone::release::Release;

use crate::recorded::{Answer, RecordedServer, Recording};

#[tokio::test]
async fn a_login_tells_the_server_and_its_release() {
    let server = RecordedServer::start(Recording::default()).await;
    let mut client = Client::connect(&server.login()).await.unwrap();
    assert_eq!(client.version(), "8.0.30-MatrixOne-v4.2.0");
    assert_eq!(client.release(), Some(Release::new(4, 2, 0)));
    assert_eq!(client.account().await.unwrap(), "sys");
    assert!(client.id() > 0);
    client.require_matrixone().await.unwrap();
    client.require_sys("BACKUP").await.unwrap();
    client.close().await;
    // Neither settings nor a reset were asked for, and the account was asked once.
    assert_eq!(server.all_statements(), ["select version()", "select current_account_name()"]);
}

#[tokio::test]
async fn another_method_of_login_is_switched_away_from() {
    let recording = Recording { switches_authentication: true, ..Recording::default() };
    let server = RecordedServer::start(recording).await;
    Client::connect(&server.login()).await.unwrap().close().await;
    let wrong = Login { password: "112".to_owned().into(), ..server.login() };
    assert_eq!(Client::connect(&wrong).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_server_without_passwords_lets_us_in() {
    let server = RecordedServer::start(Recording { password: String::new(), ..Recording::default() }).await;
    Client::connect(&server.login()).await.unwrap().close().await;
}

#[tokio::test]
async fn refused_logins_say_why_and_show_no_password() {
    let recording = Recording { others: vec![("acc1:admin".into(), "other".into())], ..Recording::default() };
    let mut server = RecordedServer::start(recording).await;
    let refusal = async |user: &str, password: &str| {
        let error = Client::connect(&server.login_as(user, password)).await.unwrap_err();
        let code = ServerError::of(&error).unwrap().code;
        let text = format!("{error} {error:?}");
        assert!(!text.contains("hunter2"), "{text}");
        (code, error.to_string())
    };
    let (code, text) = refusal("root", "hunter2").await;
    assert_eq!(code, 1045);
    assert!(text.contains("the password is wrong") && text.contains("as root") && text.contains("127.0.0.1"), "{text}");
    let (code, text) = refusal("nobody#root", "hunter2").await;
    assert_eq!(code, 20101);
    assert!(text.contains("no account nobody"), "{text}");
    let (code, text) = refusal("acc1:nobody", "hunter2").await;
    assert_eq!(code, 20101);
    assert!(text.contains("no such user in the account acc1"), "{text}");
    // `user:password@` that nobody could tell from an account and its user.
    let (_, text) = refusal("admin:hunter2", "").await;
    assert!(text.contains("no account admin"), "{text}");

    let login = server.login();
    server.stop();
    let error = Client::connect(&login).await.unwrap_err();
    assert!(error.to_string().contains("nothing listens there"), "{error}");
}

#[tokio::test]
async fn what_is_no_server_is_told_apart() {
    let login_at = |port| Login { port, ..Login::parse_url("matrixone://root@127.0.0.1").unwrap() };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        for says in [&b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"[..], b"SSH-2.0-OpenSSH_9.2\r\n", b""] {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(says).await.unwrap();
        }
    });
    for says in ["does not speak the MySQL protocol", "does not speak the MySQL protocol", "closed the connection"] {
        let error = Client::connect(&login_at(port)).await.unwrap_err();
        assert!(error.to_string().contains(says), "{error}: {:?}", error);
    }
    task.await.unwrap();
    let error = Client::connect(&Login { host: "no-such-host.invalid".into(), ..login_at(6001) }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("cannot be reached"), "{error}");
}

#[tokio::test]
async fn another_product_is_named() {
    let recording = Recording { release: "5.5.5-10.11.19-MariaDB-0+deb12u1".into(), ..Recording::default() };
    let server = RecordedServer::start(recording).await;
    let mut client = Client::connect(&server.login()).await.unwrap();
    assert_eq!(client.release(), None);
    let error = client.require_matrixone().await.unwrap_err();
    assert!(
        error.to_string().contains("is not a MatrixOne server") && error.to_string().contains("MariaDB"),
        "{error}"
    );
}

#[tokio::test]
async fn tenants_are_turned_away_from_what_is_for_sys() {
    let recording = Recording { others: vec![("acc1:admin".into(), "other".into())], ..Recording::default() };
    let server = RecordedServer::start(recording).await;
    let mut client = Client::connect(&server.login_as("acc1#admin", "other")).await.unwrap();
    let error = client.require_sys("BACKUP").await.unwrap_err();
    assert!(
        error.to_string().contains("BACKUP is for the account sys alone") && error.to_string().contains("acc1"),
        "{error}"
    );
}

#[tokio::test]
async fn rows_come_back_as_text() {
    let rows = Answer::Rows {
        columns: vec![("a".into(), 253), ("b".into(), 8), ("c".into(), 253)],
        rows: vec![
            vec![Some("x".into()), Some("17".into()), None],
            vec![Some("数".repeat(100_000)), Some(String::new()), Some("z".into())],
        ],
    };
    let recording = Recording {
        answers: vec![
            ("select rows".into(), rows),
            ("do it".into(), Answer::Done { affected: 3 }),
            ("select none".into(), Answer::rows(&["a"], &[])),
        ],
        ..Recording::default()
    };
    let server = RecordedServer::start(recording).await;
    let mut client = Client::connect(&server.login()).await.unwrap();
    let rows = client.query("select rows").await.unwrap();
    assert_eq!(rows[0], [Some("x".to_owned()), Some("17".to_owned()), None]);
    assert_eq!((rows[1][0].as_ref().unwrap().len(), rows[1][1].as_deref()), (300_000, Some("")));
    client.run("DO IT").await.unwrap();
    assert!(client.query("select none").await.unwrap().is_empty());
    assert_eq!(client.value("select none").await.unwrap(), None);
    assert_eq!(client.value("select rows").await.unwrap().as_deref(), Some("x"));
}

#[tokio::test]
async fn a_servers_error_comes_with_code_and_text_and_the_connection_lives() {
    let recording = Recording {
        answers: vec![("drop snapshot x".into(), Answer::error(20101, "internal error: snapshot x does not exist"))],
        ..Recording::default()
    };
    let server = RecordedServer::start(recording).await;
    let mut client = Client::connect(&server.login()).await.unwrap();
    let error = client.run("drop snapshot `x`").await.unwrap_err();
    let said = ServerError::of(&error).unwrap();
    assert_eq!((said.code, said.message.as_str()), (20101, "internal error: snapshot x does not exist"));
    assert!(error.to_string().contains("drop snapshot `x`"), "{error}");
    assert_eq!(client.account().await.unwrap(), "sys");
}

#[tokio::test]
async fn secrets_of_a_statement_are_in_no_error() {
    let sql = "create account `b` admin_name 'adm' identified by 'hunter2'";
    let says = [
        format!("internal error: cannot run {sql}"),
        "SQL parser error: syntax error at line 1 column 40 near \"'adm' identified by 'hunter2'\"".to_owned(),
    ];
    let server = RecordedServer::start(Recording::default()).await;
    let mut client = Client::connect(&server.login()).await.unwrap();
    for text in says {
        server.answer(sql, Answer::error(20101, &text));
        let error = client.run(sql).await.unwrap_err();
        let all = format!("{error} {error:?} {}", ServerError::of(&error).unwrap());
        assert!(!all.contains("hunter2") && all.contains("***"), "{all}");
    }
    server.answer(sql, Answer::Cut);
    let error = client.run(sql).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_lost_connection_is_not_mistaken_for_an_answer() {
    let mut server = RecordedServer::start(Recording::default()).await;
    server.answer("restore cluster", Answer::Cut);
    let mut client = Client::connect(&server.login()).await.unwrap();
    let error = client.run("restore cluster").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("whether the statement was done is not known"), "{error}");
    let error = client.run("select 1").await.unwrap_err();
    assert!(error.to_string().contains("connect anew"), "{error}");
    // A server that comes back takes a new connection.
    server.stop();
    server.revive();
    let mut client = Client::connect(&server.login()).await.unwrap();
    assert_eq!(client.account().await.unwrap(), "sys");
}

#[tokio::test]
async fn an_unknown_syntax_is_tried_the_other_way() {
    let server = RecordedServer::start(Recording::default()).await;
    server.answer("new form", Answer::error(1064, "SQL parser error: You have an error in your SQL syntax"));
    server.answer("old form", Answer::Done { affected: 0 });
    server.answer("refused form", Answer::error(20101, "internal error: no"));
    let mut client = Client::connect(&server.login()).await.unwrap();
    client.run_either("new form", "old form").await.unwrap();
    assert_eq!(ServerError::of(&client.run_either("refused form", "old form").await.unwrap_err()).unwrap().code, 20101);
    assert_eq!(server.statements(), ["new form", "old form", "refused form"]);
}

#[tokio::test]
async fn long_statements_go_through_in_one_piece() {
    let server = RecordedServer::start(Recording::default()).await;
    let sql = format!("select '{}'", "x".repeat((16 << 20) + 7));
    server.answer(&sql, Answer::rows(&["x"], &[&["done"]]));
    let mut client = Client::connect(&server.login()).await.unwrap();
    assert_eq!(client.value(&sql).await.unwrap().as_deref(), Some("done"));
    // Longer than 64 MiB no server takes: said before anything is sent halfway.
    let sql = format!("select '{}'", "x".repeat(64 << 20));
    let error = client.run(&sql).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Invalid && error.to_string().len() < 1000, "{error}");
    assert_eq!(client.account().await.unwrap(), "sys");
}

#[tokio::test]
async fn a_statement_that_nobody_waits_for_ends_the_connection() {
    let Some(mut recording) = Recording::captured("a statement that nobody waits for") else { return };
    let target = tempfile::tempdir().unwrap();
    recording.faults = vec![Some(crate::recorded::Fault::Slow(Duration::from_millis(50)))];
    let server = RecordedServer::start(recording).await;
    let mut client = Client::connect(&server.login()).await.unwrap();
    let sql = format!("backup 'x' filesystem '{}/b' parallelism '2' type 'full'", target.path().display());
    tokio::time::timeout(Duration::from_millis(300), client.run(&sql)).await.unwrap_err();
    let error = client.run("select 1").await.unwrap_err();
    assert!(error.to_string().contains("connection is lost"), "{error}");
    drop(client);
    assert!(!target.path().join("b/mo_meta").exists());
}
