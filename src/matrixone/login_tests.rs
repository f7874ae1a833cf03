//! URLs, files and secrets as people write them.

use std::os::unix::fs::PermissionsExt;

use super::*;

fn parts(url: &str) -> (String, String, u16) {
    let login = Login::parse_url(url).unwrap();
    (login.user, login.host, login.port)
}

fn refusal(url: &str) -> String {
    Login::parse_url(url).unwrap_err().to_string()
}

#[test]
fn users_go_through_as_they_are() {
    for (url, user) in [
        ("matrixone://root@db", "root"),
        ("matrixone://acc1#root@db:6001", "acc1#root"),
        ("matrixone://acc1%23root@db", "acc1#root"),
        ("matrixone://acc1:root@db/", "acc1:root"),
        ("matrixone://acc1%3Aroot@db", "acc1:root"),
        ("matrixone://root%3Ax@db", "root:x"),
        ("matrixone://acc1:root:role@db", "acc1:root:role"),
        ("matrixone://acc1#root#role@db", "acc1#root#role"),
        ("matrixone://dump?role=__MO_OB__@db", "dump?role=__MO_OB__"),
        ("matrixone://a@b@db", "a@b"),
        ("matrixone://%E6%95%B0@db", "数"),
    ] {
        assert_eq!(parts(url), (user.to_owned(), "db".to_owned(), 6001), "{url}");
    }
}

#[test]
fn hosts_and_ports() {
    assert_eq!(parts("matrixone://root@10.0.0.7:7001").2, 7001);
    assert_eq!(parts("matrixone://root@[::1]:7001"), ("root".into(), "::1".into(), 7001));
    assert_eq!(parts("matrixone://root@[::1]").2, DEFAULT_PORT);
    assert_eq!(Login::parse_url("matrixone://root@[::1]:7").unwrap().place(), "[::1]:7");
    for (url, says) in [
        ("mysql://root@db", "named as matrixone://"),
        ("matrixone://db", "no user"),
        ("matrixone://@db", "user is empty"),
        ("matrixone://root@", "host is missing"),
        ("matrixone://root@:6001", "host is missing"),
        ("matrixone://root@db:0", "the port is"),
        ("matrixone://root@db:65536", "the port is"),
        ("matrixone://root@db:x", "the port is"),
        ("matrixone://root@::1", "stands in [ ]"),
        ("matrixone://root@[::1", "has no ]"),
        ("matrixone://root@[::1]7", "a colon"),
        ("matrixone://root@db/shop", "there is nothing"),
        ("matrixone://root@db?x=1", "there is nothing"),
        ("matrixone://ro%zzot@db", "hexadecimal"),
        ("matrixone://ro%2@db", "hexadecimal"),
        ("matrixone://ro%ff@db", "UTF-8"),
        ("matrixone://ro%0Aot@db", "control"),
    ] {
        assert!(refusal(url).contains(says), "{url}: {}", refusal(url));
    }
}

#[test]
fn a_password_in_a_url_is_refused_and_not_repeated() {
    for url in [
        "matrixone://root:hunter2@db",
        "matrixone://dump:hunter2@db:6001",
        "matrixone://acc1#root:hunter2@db",
        "matrixone://Root:hunter2?label@db",
    ] {
        let refusal = refusal(url);
        assert!(refusal.contains("--password-file") && refusal.contains(PASSWORD_VARIABLE), "{refusal}");
        assert!(!refusal.contains("hunter2"), "{refusal}");
    }
    assert!(refusal("matrixone://root:@db").contains("password"));
    // What cannot be told from an account and its user is at least not shown later.
    let login = Login::parse_url("matrixone://admin:hunter2@db").unwrap();
    assert_eq!(login.shown_user(), "admin:…");
}

#[test]
fn accounts_are_read_off_users() {
    for (user, account) in [
        ("root", "sys"),
        ("acc1#root", "acc1"),
        ("acc1:root:role", "acc1"),
        ("dump?role=a:b", "sys"),
        ("sys#root", "sys"),
    ] {
        let login =
            Login { host: String::new(), port: 1, user: user.into(), password: Secret::default(), tls: Tls::Off };
        assert_eq!(login.account(), account, "{user}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let secret = Secret::new("hunter2");
    let login = Login { password: secret.clone(), ..Login::parse_url("matrixone://root@db").unwrap() };
    for shown in [format!("{secret}"), format!("{secret:?}"), format!("{login:?}"), format!("{:#?}", login.password)] {
        assert!(!shown.contains("hunter2"), "{shown}");
    }
    assert_eq!(secret.reveal(), "hunter2");
}

fn write(directory: &Path, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn passwords_are_found_in_their_order() {
    let scratch = tempfile::tempdir().unwrap();
    let file = write(scratch.path(), "password", "from file\r\nsecond line\n", 0o600);
    let login_file = write(
        scratch.path(),
        "my.cnf",
        "[mysqld]\npassword=no\n[client]\nuser = acc1#root # ours\npassword=\"from # login\\\\ file\"\nport=7001\nhost=elsewhere\n",
        0o640,
    );
    let mut sources = LoginSources { login_file: Some(login_file), ..LoginSources::default() };

    let found = Login::find("matrixone://db", &sources).unwrap();
    assert_eq!(found.login.password.reveal(), "from # login\\ file");
    assert_eq!((found.login.user.as_str(), found.login.port, found.login.host.as_str()), ("acc1#root", 7001, "db"));
    assert_eq!(found.warnings.len(), 1);
    assert!(found.warnings[0].contains("chmod 600"), "{:?}", found.warnings);

    sources.environment = Some(Secret::new("from environment"));
    let found = Login::find("matrixone://root@db:6002", &sources).unwrap();
    assert_eq!(found.login.password.reveal(), "from environment");
    assert_eq!((found.login.user.as_str(), found.login.port), ("root", 6002));

    sources.password_file = Some(file);
    let found = Login::find("matrixone://root@db", &sources).unwrap();
    assert_eq!(found.login.password.reveal(), "from file");

    let nothing = Login::find("matrixone://root@db", &LoginSources::default()).unwrap();
    assert!(!nothing.has_password && nothing.login.password.is_empty());
}

#[test]
fn files_that_are_none_are_named() {
    let scratch = tempfile::tempdir().unwrap();
    let find = |path: PathBuf| {
        let sources = LoginSources { password_file: Some(path), ..LoginSources::default() };
        Login::find("matrixone://root@db", &sources).unwrap_err()
    };
    assert!(find(scratch.path().join("absent")).to_string().contains("absent"));
    assert!(find(write(scratch.path(), "empty", "\nhunter2\n", 0o600)).to_string().contains("first line"));
    let path = scratch.path().join("binary");
    std::fs::write(&path, b"\xffhunter2").unwrap();
    assert!(!find(path).to_string().contains("hunter2"));
    let path = write(scratch.path(), "cnf", "[client]\nport=x\n", 0o600);
    let sources = LoginSources { login_file: Some(path), ..LoginSources::default() };
    assert!(Login::find("matrixone://root@db", &sources).unwrap_err().to_string().contains("line 2"));
}

#[test]
fn login_files_are_read_as_mysql_reads_them() {
    let read = |line: &str| {
        let text = format!("[client]\n{line}\n");
        parse_login_file(&text, Path::new("x")).unwrap().password.unwrap().reveal().to_owned()
    };
    for (line, password) in [
        ("password=abc", "abc"),
        ("password = abc  ", "abc"),
        ("password=a#b", "a"),
        ("password='a#b' # comment", "a#b"),
        ("password=\"it's\"", "it's"),
        ("password=a\\\\b\\sc", "a\\b c"),
        ("password=a\\qb", "a\\qb"),
        ("password=", ""),
        ("password", ""),
    ] {
        assert_eq!(read(line), password, "{line}");
    }
    assert_eq!(
        parse_login_file("password=outside\n[mysql]\npassword=other\n", Path::new("x")).unwrap(),
        LoginFile::default()
    );
}
