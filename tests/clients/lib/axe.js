// axe-core in a page.
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

/**
 * Violations reported by axe-core, except minor ones: rule, impact and element. At least `least`
 * rules must pass, or the check did not work.
 */
export async function violations(tab, least = 20) {
  await tab.evaluate(AXE);
  const { violations: found, passes } = await tab.evaluate(() => window.axe.run());
  assert.ok(passes.length > least, 'axe-core checked too few rules');
  return found
    .filter(({ impact }) => impact !== 'minor')
    .flatMap(({ id, impact, nodes }) =>
      nodes.map(
        ({ target, failureSummary }) => `${id} (${impact}) at ${target}: ${failureSummary}`,
      ),
    );
}
