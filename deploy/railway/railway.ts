// The gateway on Railway: copy this file to .railway/railway.ts of your project.
// docs/deployment/railway.md explains how to use it, and why.
// Not tried on Railway itself: checked against Railway's documentation and the types of the npm
// package `railway` 3.11.0.
import { defineRailway, image, preserve, project, redis, service } from 'railway/iac';

export default defineRailway(() => {
  const store = redis('redis');

  const gateway = service('gateway', {
    source: image('REGISTRY/sse-gateway:0.1.0'),
    // The port of the check is PORT: below, that of the admin listener.
    healthcheck: '/readyz',
    healthcheckTimeout: 60,
    replicas: 2,
    deploy: {
      // From SIGTERM to SIGKILL: drain.delay (5 s) + drain.window (20 s) + 10 s.
      drainingSeconds: 35,
      // New streams go to the new deployment before the old one drains.
      overlapSeconds: 10,
      restartPolicyType: 'ALWAYS',
    },
    domains: [{ domain: 'events.example.com', port: 8080 }],
    env: {
      PORT: '9090',
      SSE_GATEWAY__SERVER__LISTEN: '[::]:8080',
      SSE_GATEWAY__ADMIN__LISTEN: '[::]:9090',
      SSE_GATEWAY__REDIS__URL: store.env.REDIS_URL,
      // Set with `railway variable set`; the first deployment fails without it.
      SSE_GATEWAY__TICKETS__SECRET: preserve(),
      SSE_GATEWAY__TICKETS__DEFAULT_TOPICS: 'news',
      SSE_GATEWAY__CORS__ALLOWED_ORIGINS: 'https://app.example.com',
      // Railway ends requests after 15 minutes. The gateway ends them earlier: 12 minutes +- 20 %.
      SSE_GATEWAY__SERVER__MAX_CONNECTION_AGE: '12m',
      // Railway allows 10,000 connections.
      SSE_GATEWAY__LIMITS__MAX_CONNECTIONS: '5000',
      SSE_GATEWAY__LOG__FORMAT: 'json',
    },
  });

  return project('sse-gateway', { resources: [store, gateway] });
});
