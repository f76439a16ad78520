#!/bin/sh
# Holds a running view against what it says of itself: schemathesis makes requests from the OpenAPI document, right ones and wrong
# ones, and looks for an answer that the document does not have; grpcurl, which knows nothing of Tidemark, calls it by reflection.
# Arguments are options of schemathesis: --max-examples 1000, --seed N. The other settings are in schemathesis.toml.
set -eu
cd "$(dirname "$0")/../.."
tools=.cache/schemathesis
if ! [ -x $tools/bin/st ] || ! $tools/bin/pip freeze | grep -qxf internal/contract/requirements.txt; then
	python3 -m venv $tools
	$tools/bin/pip install --quiet --requirement internal/contract/requirements.txt
fi

dir=$(mktemp -d)
TMPDIR=$dir bin/tidemark demo --listen 127.0.0.1:0 >"$dir/out" 2>&1 &
demo=$!
trap 'kill $demo 2>/dev/null || :; wait $demo || :; rm -rf "$dir"' EXIT
url=
until [ -n "$url" ]; do
	kill -0 $demo || { cat "$dir/out"; exit 1; }
	url=$(sed -n 's|.*curl \(http://[0-9.:]*\)/v1/status.*|\1|p' "$dir/out")
	sleep 0.1
done
addr=${url#http://}

echo "grpcurl, by reflection"
call() { bin/grpcurl -plaintext -max-time 10 "$@"; }
bin/grpcurl -plaintext "$addr" list | grep -x tidemark.v1.View
call "$addr" describe tidemark.v1.View.Watch | grep 'returns ( stream .tidemark.v1.WatchResponse )'
call -d '{"id":"24.151.103.17"}' "$addr" tidemark.v1.View/Get | grep '"version": "602"'
call -d '{"service":"tidemark.v1.View"}' "$addr" grpc.health.v1.Health/Check | grep SERVING
# A watch has no end: it is the deadline that ends this one, after what it was told first.
bin/grpcurl -plaintext -max-time 1 -d '{"id":"24.151.103.17"}' "$addr" tidemark.v1.View/Watch >"$dir/watch" 2>&1 || :
grep '"heartbeat"' "$dir/watch"
grep DeadlineExceeded "$dir/watch"

root=$PWD
cd "$dir" # where it keeps what it found
SCHEMATHESIS_HOOKS=$root/internal/contract/hooks.py "$root/$tools/bin/st" --config-file "$root/internal/contract/schemathesis.toml" \
	run "$url/openapi.json" "$@"
