/** Counts the requests of this process, for its supervisor. */
class Workload {
  /** The number of requests whose handler runs or whose response is being sent. */
  running = 0;
  /** The number of requests so far. */
  begun = 0;
  /** Called before each request's handler. */
  onBegin: (() => void) | undefined;

  begin(): void {
    this.running++;
    this.begun++;
    this.onBegin?.();
  }

  end(): void {
    this.running--;
  }
}

/** The requests of this process. */
export const workload: Workload = new Workload();
