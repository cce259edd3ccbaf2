// Writes docs/errors.md from the library's table of errors. With --check it only says whether the file is up to date.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { pathToFileURL } from 'node:url'
import { root } from './lib.mjs'

const file = path.join(root, 'docs/errors.md')

/** What is wrong with docs/errors.md, if anything. */
export async function checkDocs(table, page = file) {
  const expected = render(table ?? (await errorTable()))
  if (existsSync(page) && readFileSync(page, 'utf8') === expected) return []
  return ['docs/errors.md is not what the table in the code says. Run `npm run docs`.']
}

async function errorTable() {
  const { errorTable } = await import(pathToFileURL(path.join(root, 'packages/spillway/dist/index.js')))
  if (!errorTable) throw new Error('packages/spillway/src/index.ts does not export errorTable.')
  return errorTable
}

/** The page for a table code -> { status, closeCode, retryable, advice }. */
export function render(table) {
  const codes = Object.entries(table)
  return `${[
    '<!-- Generated from errorTable in packages/spillway/src/core/errors.ts by `npm run docs`. -->',
    '# Errors',
    '',
    'Everything Spillway throws or answers with is a `SpillwayError`. Decide by its `code`: codes are stable, messages are',
    'for people and may change. WebSocket close codes from 4000 to 4499 mean "come back and resume", those from 4500 to',
    '4999 "the same attempt will fail again".',
    '',
    '| code | HTTP status | close code | worth trying again |',
    '| --- | --- | --- | --- |',
    ...codes.map(([code, { status, closeCode, retryable }]) => {
      return `| [\`${code}\`](#${code.toLowerCase()}) | ${status} | ${closeCode} | ${retryable ? 'yes' : 'no'} |`
    }),
    ...codes.flatMap(([code, { advice }]) => ['', `## ${code}`, '', advice]),
  ].join('\n')}\n`
}

async function main() {
  if (process.argv.includes('--check')) {
    const problems = await checkDocs()
    for (const problem of problems) console.error(problem)
    process.exitCode = problems.length > 0 ? 1 : 0
    return
  }
  mkdirSync(path.dirname(file), { recursive: true })
  writeFileSync(file, render(await errorTable()))
  console.log('Wrote docs/errors.md.')
}

if (import.meta.filename === process.argv[1]) await main()
