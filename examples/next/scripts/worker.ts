// Publishes the metrics of the dashboard every two seconds, as a cron job of yours may do.
import { setTimeout as pause } from 'node:timers/promises';
import { publishMetrics } from '../lib/metrics';
import { visitors } from './visitors';

const INTERVAL = 2000;

for (;;) {
  await publishMetrics(visitors()).catch((error) => console.error(`metrics: ${error.message}`));
  await pause(INTERVAL);
}
