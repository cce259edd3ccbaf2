import assert from 'node:assert/strict'
import path from 'node:path'
import { test } from 'node:test'
import { checkDocs, render } from '../docs.mjs'
import { temporaryFolder } from './temporary.mjs'

const table = { LAGGED: { status: 410, closeCode: 4002, retryable: true, advice: 'Reload, then resume.' } }

test('every code has a row and a heading with its advice', () => {
  const page = render(table)
  assert.match(page, /^\| \[`LAGGED`\]\(#lagged\) \| 410 \| 4002 \| yes \|$/m)
  assert.match(page, /^## LAGGED\n\nReload, then resume\.$/m)
})

test('a page that differs from the table is found, and a missing one', async (t) => {
  const folder = temporaryFolder(t, { 'same.md': render(table), 'other.md': `${render(table)}.` })
  assert.deepEqual(await checkDocs(table, path.join(folder, 'same.md')), [])
  for (const name of ['other.md', 'none.md']) {
    assert.match((await checkDocs(table, path.join(folder, name)))[0], /npm run docs/)
  }
})
