# Image of the gateway: the binary, the libraries it is linked to and the CA certificates. It
# contains no shell and no package manager.
#
#   docker build -t sse-gateway:0.1.0 .
#
# The image contains no settings: pass them as environment variables or in a mounted file. Probes
# must be able to reach the admin listener in the container: set
# SSE_GATEWAY__ADMIN__LISTEN=[::]:9090 (k8s/ and docker-compose.yaml do).
# There is no HEALTHCHECK, because it would need a client in the image. Kubernetes and the balancer
# request /readyz and /healthz instead.

# The toolchain matches `rust-version` in Cargo.toml; Debian 12 matches CI. The slim image includes
# gcc, which is all that aws-lc needs on x86_64 and aarch64 (no cmake, no bindgen). jemalloc needs
# make, too.
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends make \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build

# Dependencies are built in a separate layer, which changes only with a manifest or the lock file.
# Cargo needs all workspace members and something to compile, so both get an empty program.
COPY Cargo.toml Cargo.lock ./
COPY .cargo/config.toml .cargo/
COPY loadtest/Cargo.toml loadtest/
RUN mkdir -p src loadtest/src \
 && echo 'fn main() {}' > src/main.rs && cp src/main.rs loadtest/src/main.rs && : > src/lib.rs \
 && cargo build --release --locked --package sse-gateway

# The page of `sse-gateway dev` contains the JavaScript client and some pages of the book, and the
# admin listener serves the description of the API. COPY preserves modification times, which are
# older than the build above, so `touch` makes Cargo rebuild the gateway.
COPY src src
COPY clients/js/src clients/js/src
COPY docs/getting-started.md docs/
COPY docs/concepts docs/concepts
COPY docs/guides docs/guides
COPY docs/reference/openapi.json docs/reference/
RUN touch src/main.rs src/lib.rs && cargo build --release --locked --package sse-gateway

# Dynamically linked with copied libraries, because name resolution is unreliable in a static glibc.
COPY deploy/image/rootfs.sh deploy/image/
RUN sh deploy/image/rootfs.sh target/release/sse-gateway /rootfs

FROM scratch AS final
COPY --from=build /rootfs /
# Numeric, because Kubernetes can check `runAsNonRoot` only for numeric users.
USER 65532:65532
EXPOSE 8080 9090
# SIGTERM drains the gateway. Wait drain.delay + drain.window + 10 s before sending SIGKILL.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/sse-gateway"]
CMD ["serve"]
