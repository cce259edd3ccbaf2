import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import type { TestContext } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { chromium, type Page } from 'playwright-core'

export const root = new URL('../../../', import.meta.url)
/** Where the docs say that a server is. */
export const printedUrl = 'http://127.0.0.1:4747'

/** Starts the server that the docs speak of, at another port, until `stop` is called. */
export async function serve(): Promise<{ url: string; stop(): Promise<void> }> {
  const bin = fileURLToPath(new URL('packages/server/dist/bin.js', root))
  const server: ChildProcess = spawn(process.execPath, [bin, 'serve', '--source', 'host', '--memory', '--port', '0'], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let said = ''
  let url = ''
  for (const output of [server.stdout, server.stderr]) output?.on('data', (text) => (said += text))
  while (!url) {
    if (server.exitCode !== null) throw new Error(`The server ended: ${said}`)
    await Promise.race([
      once(server.stdout as NodeJS.ReadableStream, 'data'),
      once(server.stderr as NodeJS.ReadableStream, 'data'),
      once(server, 'exit'),
    ])
    url = /http:\/\/127\.0\.0\.1:\d+/.exec(said)?.[0] ?? ''
  }
  const stop = async () => {
    server.kill()
    if (server.exitCode === null) await once(server, 'exit')
  }
  return { url, stop }
}

/** The code blocks of a page, by language. */
export function snippetsOf(page: string): (language: string) => string[] {
  const text = readFileSync(new URL(page, root), 'utf8')
  return (language) =>
    [...text.matchAll(/^```(\w+)\n(.*?)^```$/gms)]
      .filter(([, name]) => name === language)
      .map(([, , code = '']) => code)
}

/** What a program in TypeScript prints. */
export async function runProgram(source: string): Promise<string> {
  const file = fileURLToPath(new URL(`../snippet-${process.pid}.mts`, import.meta.url))
  writeFileSync(file, source)
  try {
    return (await promisify(execFile)(process.execPath, [file], { timeout: 60_000 })).stdout
  } finally {
    rmSync(file)
  }
}

const executablePath = ['chromium', 'chromium-browser', 'google-chrome']
  .flatMap((name) => (process.env.PATH ?? '').split(path.delimiter).map((folder) => path.join(folder, name)))
  .find((file) => existsSync(file))

/** Why tests in a browser are skipped, if they are. */
export const noBrowser = !executablePath && 'no Chromium'

/** A page of a browser that ends with the test. */
export async function newPage(t: TestContext): Promise<Page> {
  const chrome = await chromium.launch({
    executablePath: executablePath as string,
    args: ['--no-sandbox', '--disable-background-networking'],
  })
  t.after(() => chrome.close())
  return chrome.newPage()
}
