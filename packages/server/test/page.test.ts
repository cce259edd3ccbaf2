import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import path from 'node:path'
import { after, before, describe, test } from 'node:test'
import { type Browser, chromium, type Page } from 'playwright-core'
import { event, publish } from './support/events.ts'
import { folder } from './support/folder.ts'
import { run, serve } from './support/program.ts'

const executablePath = ['chromium', 'chromium-browser', 'google-chrome']
  .flatMap((name) => (process.env.PATH ?? '').split(path.delimiter).map((folder) => path.join(folder, name)))
  .find((file) => existsSync(file))

const skip = executablePath === undefined && 'there is no Chromium on this machine'

describe('the page', { skip }, () => {
  let browser: Browser

  before(async () => {
    const args = ['--no-sandbox', '--disable-background-networking', '--disable-dev-shm-usage']
    browser = await chromium.launch({ executablePath: executablePath ?? '', args })
  })
  after(() => browser.close())

  /** Opens the page; `problems` collects whatever it complains about. */
  async function visit(url: string): Promise<{ page: Page; problems: string[] }> {
    const page = await browser.newPage()
    const problems: string[] = []
    page.on('pageerror', (error) => problems.push(String(error)))
    page.on('dialog', (dialog) => {
      problems.push(`dialog ${dialog.message()}`)
      dialog.dismiss().catch(() => {})
    })
    page.on('console', (message) => {
      if (message.type() === 'error') problems.push(message.text())
    })
    await page.goto(url)
    return { page, problems }
  }

  test('it shows what is kept and what comes, newest first, and runs nothing of it', async (t) => {
    const { url } = await serve(t)
    const html = '<img src=x onerror="alert(1)"><script>alert(2)</script>'
    await publish(url, event('kept'))
    const { page, problems } = await visit(url)
    await page.locator('#state[data-state=live]').waitFor()
    await publish(url, { topic: html, type: html, key: html, payload: { html } })
    const newest = page.locator('#events li').first()
    await newest.getByText('<img').first().waitFor()
    assert.equal(await newest.locator('.topic').textContent(), html)
    assert.equal(await newest.locator('.payload').textContent(), JSON.stringify({ html }))
    await newest.locator('summary').click()
    await newest.locator('pre').getByText('onerror').waitFor()
    assert.equal(await page.locator('#events li').last().locator('.key').textContent(), 'kept')
    assert.equal(await page.locator('img, #events script, #shown script').count(), 0)
    assert.equal(await page.locator('#index').textContent(), '2')
    assert.deepEqual(problems, [])
    await page.close()
  })

  test('it follows chosen topics, hides others, and keeps 200 events', async (t) => {
    const { url } = await serve(t)
    const { page, problems } = await visit(url)
    await page.locator('#state[data-state=live]').waitFor()
    await publish(url, event('a', 'A'), event('b', 'B'))
    await page.locator('#events li[data-topic=B]').waitFor()
    await page.locator('#shown').getByText('A', { exact: true }).click()
    await page.locator('#events li[data-topic=A]').waitFor({ state: 'hidden' })

    await page.fill('#topics', 'B:b C')
    const reconnected = page.waitForRequest((request) => request.url().includes('topic=B%3Ab&topic=C'))
    await page.click('#filter button[type=submit]')
    await reconnected
    await page.locator('#state[data-state=live]').waitFor()
    await publish(url, event('other', 'B'), ...Array.from({ length: 230 }, (_, i) => event(`c${i}`, 'C')))
    await page.getByText('c229', { exact: true }).waitFor()
    assert.equal(await page.locator('#events li').count(), 200)
    assert.equal(await page.getByText('other', { exact: true }).count(), 0)
    assert.deepEqual(problems, [])
    await page.close()
  })

  test('it comes back after the server did, and says that a new history began', async (t) => {
    const { server, url } = await serve(t)
    const { page } = await visit(url)
    await publish(url, event('before'))
    await page.getByText('before', { exact: true }).waitFor()
    server.kill('SIGTERM')
    await server.ended
    await page.locator('#events .note', { hasText: 'The server ended the stream' }).waitFor()
    await page.locator('#state[data-state=connecting]').waitFor()
    await serve(t, '--port', new URL(url).port)
    await publish(url, event('after'))
    await page.locator('#events .note', { hasText: 'Reset' }).waitFor()
    await page.getByText('after', { exact: true }).waitFor()
    await page.close()
  })

  test('it draws the load of the machine when the server tells it', async (t) => {
    const { url } = await serve(t, '--source', 'host')
    const { page, problems } = await visit(url)
    await page.locator('#host').waitFor()
    await page.locator('#cpu .value', { hasText: '%' }).waitFor()
    assert.match((await page.locator('#memory .value').textContent()) ?? '', /^[0-9]+ % of /)
    assert.match((await page.locator('#load polyline').getAttribute('points')) ?? '', /^[0-9]+,[0-9.]+/)
    assert.deepEqual(problems, [])
    await page.close()
  })

  test('where a token is wanted it asks for one, and comes back after a cut without asking again', async (t) => {
    const file = path.join(await folder(t), 'tokens.json')
    const { stdout } = await run(t, [
      'token',
      'create',
      '--file',
      file,
      '--name',
      'page',
      '--read',
      '*',
      '--publish',
      '*',
    ])
    const token = stdout.trim()
    const access = ['--auth', 'tokens', '--tokens', file]
    const first = await serve(t, ...access)
    const { page } = await visit(first.url)
    await page.getByText('a token is needed').waitFor()
    await page.locator('#token').fill('wrong')
    await page.locator('#token').press('Enter')
    await page.getByText('the token is not valid').waitFor()
    await page.locator('#token').fill(token)
    await page.locator('#token').press('Enter')
    await page.locator('#state[data-state=live]').waitFor()
    assert.equal(await page.locator('#login').isVisible(), false)
    const publishOne = async (url: string, key: string) => {
      const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/json' }
      const response = await fetch(`${url}/v1/events`, { method: 'POST', headers, body: JSON.stringify(event(key)) })
      assert.equal(response.status, 200)
    }
    await publishOne(first.url, 'before')
    await page.locator('#events .key').getByText('before').waitFor()
    first.server.kill('SIGKILL')
    await first.server.ended
    const { url } = await serve(t, ...access, '--port', new URL(first.url).port)
    await page.locator('#state[data-state=live]').waitFor()
    await publishOne(url, 'after')
    await page.locator('#events .key').getByText('after').waitFor()
    assert.doesNotMatch(page.url(), /spw_/)
    await page.close()
  })
})
