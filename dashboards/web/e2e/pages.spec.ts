import AxeBuilder from '@axe-core/playwright';
import { expect, test, type Page } from '@playwright/test';

const url = () => process.env['BINNACLE_URL'] ?? '';

/** What the browser refused or could not do is a failure, whatever the page shows. */
function watch(page: Page): string[] {
  const problems: string[] = [];
  page.on('console', (message) => message.type() === 'error' && problems.push(message.text()));
  page.on('pageerror', (error) => problems.push(String(error)));
  return problems;
}

const total = async (page: Page) =>
  Number((await page.getByTestId('total').innerText()).replaceAll(',', ''));

test('a query finds rows, a click on a field filters, the histogram follows', async ({ page }) => {
  const problems = watch(page);
  await page.goto(url());
  await expect(page.getByTestId('row').first()).toBeVisible();
  await page.getByTestId('query').fill('charge accepted');
  await page.getByTestId('query').press('Enter');
  await expect(page).toHaveURL(/q=charge/);
  expect(page.url(), 'Enter searches, and changes no time').not.toContain('from=');
  await expect(page.getByTestId('row').first().locator('mark').first()).toHaveText('charge');
  await page.getByTestId('query').fill('status:200');
  await page.getByRole('button', { name: 'Search' }).click();
  await expect(page.getByTestId('row').first()).toBeVisible();
  const before = await total(page);
  const bars = page.locator('figure svg rect');
  const drawn = await bars.count();
  expect(drawn).toBeGreaterThan(0);
  const legend = page.getByTestId('histogram-legend');
  await page.getByTestId('query').fill('namespace:shop');
  await page.getByTestId('query').press('Enter');
  await expect(legend).toContainText('no level');
  await page.locator('[data-testid=row]', { hasText: 'payment-' }).first().click();
  const detail = page.getByTestId('detail').first();
  await expect(detail).toContainText('trace_id');
  await detail.getByRole('button', { name: 'Only entries with service payment' }).click();
  await expect(page).toHaveURL(/service%3Apayment/);
  await expect(page.getByTestId('query')).toHaveValue('namespace:shop service:payment');
  // The front's lines have no level: with the filter they leave the rows and the histogram.
  await expect(legend).not.toContainText('no level');
  await expect(page.locator('[data-testid=row]', { hasText: 'front-' })).toHaveCount(0);
  expect(await total(page)).toBeLessThan(before * 2);
  await page.locator('[data-testid=row][aria-expanded=false]', { hasText: 'charge accepted' }).first().click();
  await page.getByTestId('detail').filter({ hasText: 'charge accepted' }).first().getByRole('button', { name: 'No entries with level info' }).click();
  await expect(page.getByTestId('query')).toHaveValue(/-level:info/);
  await page.goBack();
  await expect(page.getByTestId('query')).toHaveValue('namespace:shop service:payment');
  expect(problems).toEqual([]);
});

test('live tail shows a line as it is written', async ({ page }) => {
  const problems = watch(page);
  await page.goto(`${url()}/?q=service:payment`);
  await expect(page.getByTestId('row').first()).toBeVisible();
  const first = await page.getByTestId('row').first().innerText();
  await page.getByTestId('live').click();
  await expect(page.getByText('● live')).toBeVisible();
  await expect(page.getByTestId('row').first()).not.toHaveText(first);
  const before = await total(page);
  await expect.poll(() => total(page)).toBeGreaterThan(before + 5);
  expect(problems).toEqual([]);
});

test('pasted text is a phrase with a hint', async ({ page }) => {
  await page.goto(`${url()}/?${new URLSearchParams({ q: '{"level":"info"' })}`);
  await expect(page.getByTestId('hint')).toContainText('as a phrase');
});

test('a log line cannot run a script or change the page', async ({ page }) => {
  const problems = watch(page);
  await page.goto(`${url()}/?${new URLSearchParams({ q: '<img src=x onerror=alert(1)>' })}`);
  await expect(page.getByTestId('status')).toBeVisible();
  await expect(page.locator('img[src=x]')).toHaveCount(0);
  const answer = await page.request.get(url());
  expect(answer.headers()['content-security-policy']).toContain("default-src 'none'");
  expect(problems).toEqual([]);
});

test('a PromQL query is drawn and listed, an error has its place', async ({ page }) => {
  const problems = watch(page);
  await page.goto(`${url()}/?page=metrics&from=now-15m`);
  await page.getByTestId('expr').fill('sum(rate(http_requests_total[1m])) by (service)');
  await page.getByTestId('expr').press('Enter');
  await expect(page.getByTestId('table')).toContainText('service="payment"');
  await expect(page.locator('[data-testid=chart] canvas')).toBeVisible();
  await expect(page).toHaveURL(/expr=sum/);
  expect(problems).toEqual([]);
  await page.getByTestId('expr').fill('sum(');
  await page.getByTestId('expr').press('Enter');
  await expect(page.getByTestId('error')).toContainText('1:5: parse error');
  await page.getByTestId('expr').fill('rate(node_memory_MemAvailable_bytes[5m])');
  // A rate needs two samples before a step, and the server has only begun to scrape.
  await expect(async () => {
    await page.getByTestId('expr').press('Enter');
    await expect(page.getByTestId('notes')).toContainText('might not be a counter', { timeout: 1000 });
  }).toPass({ timeout: 20_000 });
});

test('the alerts page lists rules', async ({ page }) => {
  const problems = watch(page);
  await page.goto(`${url()}/?page=alerts`);
  await expect(page.getByRole('heading', { name: 'TargetDown' })).toBeVisible();
  await expect(page.getByTestId('notifications')).toBeVisible();
  expect(problems).toEqual([]);
});

for (const scheme of ['light', 'dark'] as const) {
  test(`pages are accessible in ${scheme} colours and on a phone`, async ({ page }) => {
    await page.emulateMedia({ colorScheme: scheme });
    for (const path of ['/?q=service:payment', '/?page=metrics&expr=up', '/?page=alerts']) {
      await page.setViewportSize({ width: 1280, height: 800 });
      await page.goto(url() + path);
      await page.waitForTimeout(500);
      const found = await new AxeBuilder({ page }).withTags(['wcag2a', 'wcag2aa', 'wcag22aa']).analyze();
      const named = found.violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(' ')}`);
      expect(named, path).toEqual([]);
      await page.setViewportSize({ width: 400, height: 800 });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
      expect(wide, `${path} scrolls sideways on a phone`).toBe(false);
    }
  });
}
