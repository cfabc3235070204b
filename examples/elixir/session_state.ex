defmodule SnakepitOtel.SessionState do
  @moduledoc """
  Session state for Python adapters of snakepit_otel, kept by an Elixir Snakepit.

  Copy this file into your application, and start the module after Snakepit:

      children = [SnakepitOtel.SessionState]

  It registers the five tools that `session_context.state` calls, for every worker of every pool, those that come
  later included. State belongs to the session that a caller names by the argument `session_id`; Snakepit's pool
  does not pass its own option of that name on to Python:

      Snakepit.execute("add_to_cart", %{session_id: "alice", item: "tea"}, session_id: "alice")

  Values are what JSON has. They live in this process' table, for as long as it does, or until `delete_session/1`.
  """

  use GenServer

  alias Snakepit.Bridge.ToolRegistry
  alias Snakepit.GRPCWorker
  alias Snakepit.Pool.Registry, as: Workers

  @table __MODULE__
  # Milliseconds; for sessions whose tools Snakepit has cleaned up while their worker lives.
  @interval 10_000
  @spawned [:snakepit, :pool, :worker, :spawned]
  @tools [
    {"get_session_state", :get, "One value of a session's state, with its version on request."},
    {"set_session_state", :set, "Sets one value, and returns its version."},
    {"compare_and_set_session_state", :compare_and_set, "Sets one value if it is still at a version."},
    {"delete_session_state", :delete, "Removes one value; false if there was none."},
    {"list_session_state", :list, "The keys of a session's state, with their versions."}
  ]

  def start_link(options \\ []), do: GenServer.start_link(__MODULE__, options, name: __MODULE__)

  @doc "Registers the tools in one session: the worker's own, which its requests have."
  def register(session_id) do
    for {name, operation, description} <- @tools do
      handler = fn parameters -> GenServer.call(__MODULE__, {operation, parameters}) |> answer() end
      metadata = %{description: description, exposed_to_python: true, parameters: []}

      case ToolRegistry.register_elixir_tool(session_id, name, handler, metadata) do
        :ok -> :ok
        {:error, {:duplicate_tool, _name}} -> :ok
      end
    end

    :ok
  end

  @doc "Registers the tools with all workers that there are; new ones are registered soon after they have started."
  def register_workers do
    for worker_id <- Workers.list_workers(), do: register_worker(worker_id)
    :ok
  end

  @doc "Forgets the state of a session."
  def delete_session(session_id), do: GenServer.call(__MODULE__, {:delete_session, session_id})

  @impl true
  def init(_options) do
    # Protected: writes are this process' own, one after the other, so that none comes between a read and its write.
    :ets.new(@table, [:named_table, :ordered_set, :protected])
    :telemetry.detach(__MODULE__)
    :ok = :telemetry.attach(__MODULE__, @spawned, &__MODULE__.on_worker/4, self())
    :timer.send_interval(@interval, :register_workers)
    send(self(), :register_workers)
    {:ok, nil}
  end

  @doc false
  def on_worker(_event, _measurements, _metadata, server), do: send(server, :register_workers)

  @impl true
  def handle_info(:register_workers, state) do
    # In a process of its own: a worker that starts answers late, and state is not to wait for it.
    Task.start(&register_workers/0)
    {:noreply, state}
  end

  def handle_info(_message, state), do: {:noreply, state}

  @impl true
  def handle_call({:delete_session, session_id}, _from, state) do
    :ets.match_delete(@table, {{session_id, :_}, :_, :_})
    {:reply, :ok, state}
  end

  def handle_call({operation, parameters}, _from, state) do
    {:reply, run(operation, parameters), state}
  end

  defp run(operation, %{"session_id" => session_id} = parameters) when is_binary(session_id) do
    operate(operation, session_id, parameters)
  end

  defp run(_operation, _parameters) do
    {:error, "NoSession",
     "the request names no session: give the argument session_id, as in %{session_id: \"alice\"}", %{}}
  end

  defp operate(:get, session_id, %{"key" => key} = parameters) do
    {value, version} = look_up(session_id, key, Map.get(parameters, "default"))
    {:ok, if(parameters["with_version"], do: %{value: value, version: version}, else: value)}
  end

  defp operate(:set, session_id, %{"key" => key, "value" => value}) do
    {_value, version} = look_up(session_id, key, nil)
    {:ok, write(session_id, key, value, version + 1)}
  end

  defp operate(:compare_and_set, session_id, %{"key" => key, "value" => value, "version" => expected}) do
    case look_up(session_id, key, nil) do
      {_value, ^expected} ->
        {:ok, write(session_id, key, value, expected + 1)}

      {_value, current} ->
        {:error, "StateConflict",
         "state #{inspect(key)} of session #{inspect(session_id)} is at version #{current}, not #{expected}: " <>
           "another request wrote it; read it again and retry", %{expected: expected, current: current}}
    end
  end

  defp operate(:delete, session_id, %{"key" => key}) do
    {:ok, :ets.take(@table, {session_id, key}) != []}
  end

  defp operate(:list, session_id, _parameters) do
    keys = :ets.select(@table, [{{{session_id, :"$1"}, :_, :"$2"}, [], [{{:"$1", :"$2"}}]}])
    {:ok, Map.new(keys)}
  end

  defp look_up(session_id, key, default) do
    case :ets.lookup(@table, {session_id, key}) do
      [{_key, value, version}] -> {value, version}
      [] -> {default, 0}
    end
  end

  defp write(session_id, key, value, version) do
    :ets.insert(@table, {{session_id, key}, value, version})
    version
  end

  # A tool that raises fails; JSON for its text is what a worker makes its own error of.
  defp answer({:ok, value}), do: value

  defp answer({:error, type, message, context}) do
    raise Jason.encode!(%{type: type, message: message, context: Map.put(context, :snakepit_error, type)})
  end

  # A worker that starts or ends meanwhile does not answer; one that starts is announced when it is there.
  defp register_worker(worker_id) do
    with {:ok, pid} <- Workers.get_worker_pid(worker_id),
         {:ok, session_id} <- GRPCWorker.get_session_id(pid) do
      register(session_id)
    end
  catch
    :exit, _reason -> :ok
  end
end
