#!/usr/bin/env bash
# A real S3 dialect for tests: moto with its authorization switched on, on a free loopback port.
#
#   moto.sh start DIR [VENV]   installs moto into VENV if it is not there yet (default: DIR/venv), starts a server, makes a
#                              bucket, switches authorization on, and prints the EVERPACK_TEST_S3_* variables as shell exports
#   moto.sh stop DIR           stops the server that was started with DIR
#
#   eval "$(tests/support/moto.sh start /tmp/moto)"; cargo test --test store; tests/support/moto.sh stop /tmp/moto
#
# Objects live in the memory of the server and are gone when it stops. Needs python3 with venv, and curl.
set -euo pipefail

VERSION=5.2.5
BUCKET=everpack-test

fail() { echo "moto.sh: $*" >&2; exit 1; }

stop() {
    local pid
    [ -f "$1/moto.pid" ] || return 0
    pid=$(cat "$1/moto.pid")
    # Only what we started: the process must still be a moto server.
    if tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -q moto_server; then
        kill "$pid"
        for _ in $(seq 50); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    fi
    rm -f "$1/moto.pid"
}

install() {
    [ -x "$1/bin/moto_server" ] && "$1/bin/pip" show moto 2>/dev/null | grep -qx "Version: $VERSION" && return 0
    python3 -m venv "$1" >&2
    "$1/bin/pip" install --quiet --disable-pip-version-check "moto[s3]==$VERSION" flask flask-cors >&2
}

start() {
    local dir=$1 venv=$2 port endpoint keys access secret
    mkdir -p "$dir"
    install "$venv"
    stop "$dir"
    port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
    endpoint=http://127.0.0.1:$port
    "$venv/bin/moto_server" -H 127.0.0.1 -p "$port" >"$dir/moto.log" 2>&1 &
    echo $! >"$dir/moto.pid"
    for _ in $(seq 150); do
        curl -s -o /dev/null "$endpoint/moto-api/" && break
        kill -0 "$(cat "$dir/moto.pid")" 2>/dev/null || fail "the server did not start, see $dir/moto.log"
        sleep 0.2
    done

    # Before authorization is on, anybody may make users and buckets.
    local as_iam='Authorization: AWS4-HMAC-SHA256 Credential=x/20200101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=x'
    local as_s3='Authorization: AWS4-HMAC-SHA256 Credential=x/20200101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=x'
    iam() { curl -sf -H "$as_iam" "$endpoint/" --data-urlencode Version=2010-05-08 "$@"; }
    curl -sf -X PUT -H "$as_s3" "$endpoint/$BUCKET" >/dev/null || fail "cannot make the bucket"
    iam -d Action=CreateUser -d UserName=tester >/dev/null || fail "cannot make a user"
    iam -d Action=PutUserPolicy -d UserName=tester -d PolicyName=all --data-urlencode \
        'PolicyDocument={"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"*","Resource":"*"}]}' >/dev/null
    keys=$(iam -d Action=CreateAccessKey -d UserName=tester)
    access=$(sed -n 's/.*<AccessKeyId>\(.*\)<\/AccessKeyId>.*/\1/p' <<<"$keys")
    secret=$(sed -n 's/.*<SecretAccessKey>\(.*\)<\/SecretAccessKey>.*/\1/p' <<<"$keys")
    [ -n "$access" ] && [ -n "$secret" ] || fail "the server gave no access key"
    # Without this content type the body is taken for a form and nothing happens.
    curl -sf -X POST -H 'Content-Type: application/octet-stream' --data-binary 0 "$endpoint/moto-api/reset-auth" >/dev/null

    echo "export EVERPACK_TEST_S3_ENDPOINT=$endpoint"
    echo "export EVERPACK_TEST_S3_ACCESS_KEY=$access"
    echo "export EVERPACK_TEST_S3_SECRET_KEY=$secret"
    echo "export EVERPACK_TEST_S3_BUCKET=$BUCKET"
}

case "${1:-}" in
start) [ $# -ge 2 ] || fail "start needs a directory"; start "$2" "${3:-$2/venv}" ;;
stop) [ $# -eq 2 ] || fail "stop needs a directory"; stop "$2" ;;
*) fail "usage: moto.sh start DIR [VENV] | stop DIR" ;;
esac
