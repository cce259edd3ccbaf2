import { parentPort, workerData } from 'node:worker_threads'
import { newReader } from './ring.ts'

// A reader that has looked once, waits, and never looks again when it is woken.
const { reader, ...wait } = await newReader(workerData, () => {})
if (!reader.read()) wait.await()
parentPort?.postMessage('stands')
parentPort?.on('message', () => {})
