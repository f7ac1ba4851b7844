# The image of the gateway: one binary, the libraries it is linked to, the certificate authorities; no shell, no package manager.
#
#   docker build -t sse-gateway:0.1.0 .
#
# Settings come from the environment or a mounted file; none is baked in. In a container the admin listener must be
# reachable by probes: set SSE_GATEWAY__ADMIN__LISTEN=0.0.0.0:9090 where you run it (k8s/ and docker-compose.yaml do).
# No HEALTHCHECK: it would need a client in the image; Kubernetes and the balancer ask /readyz and /healthz themselves.

# The toolchain is that of `rust-version` in Cargo.toml, and Debian 12 as in CI. The slim image has gcc, which is all that
# aws-lc needs on x86_64 and aarch64: no cmake, no bindgen.
FROM rust:1.95-slim-bookworm AS build
WORKDIR /build

# The dependencies: a layer of their own, built anew only when a manifest or the lock file changes. Cargo wants to see every member
# of the workspace and something to compile, so both get an empty program.
COPY Cargo.toml Cargo.lock ./
COPY loadtest/Cargo.toml loadtest/
RUN mkdir -p src loadtest/src \
 && echo 'fn main() {}' > src/main.rs && cp src/main.rs loadtest/src/main.rs && : > src/lib.rs \
 && cargo build --release --locked --package sse-gateway

# The gateway itself; the page of `sse-gateway dev` has the JavaScript client in it. COPY keeps the files' dates, which are older than what
# was built above, and Cargo goes by dates: hence the touch.
COPY src src
COPY clients/js/src clients/js/src
RUN touch src/main.rs src/lib.rs && cargo build --release --locked --package sse-gateway

# Dynamically linked, with the libraries copied, rather than static: a static glibc cannot resolve names reliably.
COPY deploy/image/rootfs.sh deploy/image/
RUN sh deploy/image/rootfs.sh target/release/sse-gateway /rootfs

FROM scratch AS final
COPY --from=build /rootfs /
# A number, not a name: Kubernetes can check `runAsNonRoot` only on numbers.
USER 65532:65532
EXPOSE 8080 9090
# SIGTERM drains: allow drain.delay + drain.window + 10 s before the kill.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/sse-gateway"]
CMD ["serve"]
