import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'

/** A program that runs until it is stopped; it ends with this process at the latest. */
export interface EngineProcess {
  readonly pid: number
  /** What it printed so far, the last 64 KiB. */
  readonly output: string
  /** Its exit code, or the signal that ended it, once it has ended. */
  readonly exit: Promise<number | string>
  signal(name: NodeJS.Signals): void
  /** Ends it with `SIGKILL` unless told otherwise, and waits until it is gone. */
  stop(name?: NodeJS.Signals): Promise<void>
}

const mostOutput = 65_536
const running = new Set<ChildProcess>()

process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL')
})

/** Starts a program, and resolves once `isReady` says of its output that it is; rejects with its output if it ends before. */
export async function startProcess(
  program: string,
  args: readonly string[],
  isReady: (output: string) => boolean,
  options: SpawnOptions = {},
): Promise<EngineProcess> {
  const child = spawn(program, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] })
  running.add(child)
  let output = ''
  const exit = new Promise<number | string>((resolve) => {
    child.on('close', (code, signal) => {
      running.delete(child)
      resolve(code ?? signal ?? 1)
    })
  })
  await new Promise<void>((resolve, reject) => {
    const take = (text: string) => {
      output = (output + text).slice(-mostOutput)
      if (isReady(output)) resolve()
    }
    child.stdout?.setEncoding('utf8').on('data', take)
    child.stderr?.setEncoding('utf8').on('data', take)
    child.on('error', reject)
    exit.then((code) => reject(new Error(`${program} ended with ${code} before it was ready:\n${output}`)))
  })
  return {
    pid: child.pid as number,
    get output() {
      return output
    },
    exit,
    signal: (name) => void child.kill(name),
    async stop(name = 'SIGKILL') {
      child.kill(name)
      // One that is stopped by SIGSTOP takes no other signal.
      if (name !== 'SIGKILL') child.kill('SIGCONT')
      await exit
    },
  }
}
