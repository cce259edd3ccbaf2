import { type ChildProcess, execFileSync, type SpawnOptions, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import path from 'node:path'
import type { TestContext } from 'node:test'
import { Feed } from './http.ts'

/** The path of the first of `names` that is on the PATH. */
export function findProgram(...names: string[]): string | undefined {
  const folders = (process.env.PATH ?? '').split(path.delimiter)
  return names.flatMap((name) => folders.map((folder) => path.join(folder, name))).find(existsSync)
}

/** Whether `program` ends well. */
export function works(program: string, ...args: string[]): boolean {
  try {
    execFileSync(program, args, { stdio: 'ignore', timeout: 20_000 })
    return true
  } catch {
    return false
  }
}

/** A program that runs, and the lines that it prints. */
export interface Running {
  readonly child: ChildProcess
  nextLine(): Promise<string | undefined>
  /** What it wrote to its error output so far. */
  readonly complaints: () => string
  /** Its exit code, once it has ended. */
  readonly exit: Promise<number | null>
}

/** Starts a program that ends with the test at the latest. `input` is given to it, whole. */
export function start(
  t: TestContext,
  program: string,
  args: readonly string[],
  { input, ...options }: SpawnOptions & { input?: string | Uint8Array } = {},
): Running {
  const child = spawn(program, args, options)
  const lines = new Feed<string>()
  let rest = ''
  let complaints = ''
  child.stdout?.setEncoding('utf8').on('data', (text: string) => {
    const pieces = (rest + text).split('\n')
    rest = pieces.pop() as string
    for (const piece of pieces) lines.push(piece)
  })
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    complaints += text
  })
  const exit = new Promise<number | null>((resolve) =>
    child.on('close', (code) => {
      if (rest !== '') lines.push(rest)
      lines.end()
      resolve(code)
    }),
  )
  t.after(async () => {
    child.kill('SIGKILL')
    await exit
  })
  child.stdin?.on('error', () => {})
  child.stdin?.end(input)
  return { child, nextLine: () => lines.next('a line of the program'), complaints: () => complaints, exit }
}
